//! Texts for a bench without an input: written for this, of the lengths that tickets and reviews have.

/// How many sentences follow each other in a text: 8 texts in a row hold 20 of them, whatever the batch.
const LENGTHS: [usize; 8] = [1, 2, 1, 4, 1, 2, 1, 8];

/// As many as have no common factor with `LENGTHS`: each sentence begins texts of every length.
const SENTENCES: [&str; 23] = [
    "Thanks!",
    "The parcel came two days late and one corner was crushed, but nothing inside was broken.",
    "Can you send me the invoice for March?",
    "I have written to you three times about the refund, and each time I was told to wait another week.",
    "Works as described.",
    "The battery lasts from early morning until about six, less in cold weather, and a full charge takes two hours.",
    "Order 48213 shows as delivered, although nobody was at home and no card was left.",
    "Please cancel my subscription at the end of this month.",
    "After the last update the map no longer loads on older phones; going back to the former version helps.",
    "Great value for the price, and the colour is exactly as in the picture.",
    "The hotel was quiet, the bed comfortable, and the breakfast far better than we had expected at that price.",
    "Where is my order?",
    "The technician was friendly, explained each step, and had the heating running again within an hour.",
    "It stopped working after four weeks.",
    "Our team of twelve moved over in an afternoon; only the calendar import needed some help from your support.",
    "The sleeves are too short for me, so I would like to exchange it for a larger size if you still have one.",
    "Sensor 7 reported 81.4 degrees at 03:12, which is above the limit that was agreed for that line.",
    "No complaints so far.",
    "The second chapter drags a little, but from the moment the letter is found it is impossible to put it down.",
    "Payment failed with code 402, although the card is valid and the same card worked in your shop last week.",
    "We waited for forty minutes before anyone took our order, and then half of the menu was sold out.",
    "Does this adapter fit the model from 2019?",
    "I would recommend it to anyone who cooks for more than two people and has little space in the kitchen.",
];

/// Texts until they come again in the same order.
pub const CYCLE: usize = LENGTHS.len() * SENTENCES.len();

/// So many texts, of 1 to 8 sentences.
pub fn texts(count: usize) -> Vec<String> {
    let from = |start: usize| SENTENCES.iter().cycle().skip(start % SENTENCES.len());
    let text = |(number, length): (usize, &usize)| {
        from(number * 5).take(*length).copied().collect::<Vec<_>>().join(" ")
    };
    LENGTHS
        .iter()
        .cycle()
        .enumerate()
        .map(|(number, length)| text((number, length)))
        .take(count)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_sentence_begins_a_text_of_each_length() {
        let texts = texts(CYCLE + 16);
        assert_eq!(texts.len(), CYCLE + 16);
        let lengths: BTreeSet<usize> = LENGTHS.into();
        let different: BTreeSet<&String> = texts.iter().collect();
        assert_eq!(different.len(), lengths.len() * SENTENCES.len());
        let words = |text: &String| text.split(' ').count();
        assert!(texts.iter().any(|text| words(text) < 4));
        assert!(texts.iter().any(|text| 80 < words(text)));
    }
}
