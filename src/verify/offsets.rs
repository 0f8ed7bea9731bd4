//! A set of offsets: a bit each, and nothing at all for a stretch that is in it as a whole.

use std::collections::BTreeMap;

/// Offsets of a stretch. Its bits take 8 KiB.
const STRETCH: u32 = 1 << 16;
/// Words of 64 bits in a stretch.
const WORDS: usize = 1 << 10;

/// A set of offsets, none of them negative.
#[derive(Debug, Clone, Default)]
pub(super) struct Offsets(BTreeMap<i64, Stretch>);

#[derive(Debug, Clone)]
enum Stretch {
    Some { bits: Box<[u64; WORDS]>, count: u32 },
    All,
}

/// Where an offset stands: stretch, word, bit.
fn place(offset: i64) -> (i64, usize, u32) {
    let word = usize::try_from((offset >> 6) & 0x3ff).unwrap_or(0);
    (offset >> 16, word, u32::try_from(offset & 0x3f).unwrap_or(0))
}

impl Offsets {
    /// Adds one; false where it was there.
    pub(super) fn insert(&mut self, offset: i64) -> bool {
        let (stretch, word, bit) = place(offset);
        let empty = || Stretch::Some { bits: Box::new([0; WORDS]), count: 0 };
        let found = self.0.entry(stretch).or_insert_with(empty);
        let Stretch::Some { bits, count } = found else { return false };
        let is_new = bits[word] & (1 << bit) == 0;
        bits[word] |= 1 << bit;
        *count += u32::from(is_new);
        if *count == STRETCH {
            *found = Stretch::All;
        }
        is_new
    }

    /// Whether one is in it.
    pub(super) fn contains(&self, offset: i64) -> bool {
        let (stretch, word, bit) = place(offset);
        self.word(stretch, word) & (1 << bit) != 0
    }

    #[cfg(test)]
    fn count(&self) -> u64 {
        let count = |stretch: &Stretch| match stretch {
            Stretch::Some { count, .. } => u64::from(*count),
            Stretch::All => u64::from(STRETCH),
        };
        self.0.values().map(count).sum()
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = i64> {
        words([self]).flat_map(|(first, [word])| bits(first, word))
    }

    fn word(&self, stretch: i64, word: usize) -> u64 {
        match self.0.get(&stretch) {
            None => 0,
            Some(Stretch::All) => u64::MAX,
            Some(Stretch::Some { bits, .. }) => bits[word],
        }
    }
}

/// Several sets side by side, 64 offsets at a time: the first of them, and the bits of each set. Leaves out stretches
/// of which no set has any.
pub(super) fn words<const N: usize>(sets: [&Offsets; N]) -> impl Iterator<Item = (i64, [u64; N])> {
    let mut stretches: Vec<i64> = sets.iter().flat_map(|set| set.0.keys().copied()).collect();
    stretches.sort_unstable();
    stretches.dedup();
    stretches.into_iter().flat_map(move |stretch| {
        (0_i64..).zip(0..WORDS).map(move |(number, word)| {
            ((stretch << 16) | (number << 6), sets.map(|set| set.word(stretch, word)))
        })
    })
}

/// The offsets whose bits are set in a word that begins at `first`.
pub(super) fn bits(first: i64, mut word: u64) -> impl Iterator<Item = i64> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| i64::from(word.trailing_zeros()))?;
        word &= word - 1;
        Some(first | bit)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_whole_stretch_takes_no_bits() {
        let mut set = Offsets::default();
        assert!((0..1 << 17).all(|offset| set.insert(offset)));
        assert!(set.0.values().all(|stretch| matches!(stretch, Stretch::All)));
        assert!(!set.insert(70_000) && set.contains(70_000) && !set.contains(1 << 17));
        assert_eq!((set.count(), set.iter().last()), (1 << 17, Some((1 << 17) - 1)));
    }

    proptest! {
        #[test]
        fn it_is_a_set(offsets in prop::collection::vec(prop_oneof![0..200_i64, 65_000..66_000_i64, 0..i64::MAX], 0..200)) {
            let (mut set, mut model) = (Offsets::default(), BTreeSet::new());
            for offset in &offsets {
                prop_assert_eq!(set.insert(*offset), model.insert(*offset));
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.count(), u64::try_from(model.len()).unwrap());
            prop_assert!((0..300).all(|offset| set.contains(offset) == model.contains(&offset)));
        }
    }
}
