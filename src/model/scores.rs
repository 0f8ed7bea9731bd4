//! What becomes of a head's outputs: scores in f32.

/// `1 / (1 + e^-x)`, without overflow for any finite x.
pub fn sigmoid(x: f32) -> f32 {
    if x < 0.0 {
        let e = x.exp();
        e / (1.0 + e)
    } else {
        1.0 / (1.0 + (-x).exp())
    }
}

/// `e^x / Σ e^x`, shifted by the largest so that nothing overflows.
pub fn softmax(units: &[f32]) -> Vec<f32> {
    let largest = units.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut scores: Vec<f32> = units.iter().map(|unit| (unit - largest).exp()).collect();
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_never_overflow() {
        for x in [-1e30, -200.0, -1.0, 0.0, 1.0, 200.0, 1e30] {
            assert!((0.0..=1.0).contains(&sigmoid(x)), "{x}");
            let scores = softmax(&[x, 0.0, -x]);
            assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{x}: {scores:?}");
        }
    }
}
