//! Buffers that are reused between calls.

/// The beginning of a buffer that only grows, with room for `length`; what lies there is left from other rows.
pub(in crate::model) fn room<T: Copy>(buffer: &mut Vec<T>, length: usize, new: T) -> &mut [T] {
    if buffer.len() < length {
        buffer.resize(length, new);
    }
    &mut buffer[..length]
}
