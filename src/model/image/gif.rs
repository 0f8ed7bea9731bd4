//! The first frame of a GIF, on the screen that it lies on, as Pillow shows it.
//!
//! ```text
//!  screen, filled with the transparent colour or colour 0 ◄── the first frame at its place ─► palette ─► RGB
//! ```
//!
//! GIF 89a.

use ::image::RgbImage;
use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};

use super::picture::{MOST_BYTES, Picture, Refusal, bounded};

/// Decodes a GIF.
pub(super) fn read(bytes: &[u8]) -> Result<Picture, Refusal> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.allow_unknown_blocks(true);
    if let Some(most) = std::num::NonZeroU64::new(MOST_BYTES) {
        options.set_memory_limit(MemoryLimit::Bytes(most));
    }
    let mut decoder = options.read_info(bytes).map_err(|error| refusal(&error))?;
    let global = decoder.global_palette().map(<[u8]>::to_vec);
    let screen = (decoder.width(), decoder.height());
    let Some(frame) = decoder.next_frame_info().map_err(|error| refusal(&error))? else {
        return Err(Refusal::broken("it has no frame"));
    };
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let (across, down) = (u32::from(frame.width), u32::from(frame.height));
    let width = u32::from(screen.0).max(left + across);
    let height = u32::from(screen.1).max(top + down);
    bounded(width, height, 4)?;
    if across == 0 || down == 0 {
        return Err(Refusal::broken("its first frame has no pixel"));
    }
    let colours = colours(&frame.palette.clone().or(global).unwrap_or_default());
    let colour = |index: u8| colours[usize::from(index)];
    let transparent = frame.transparent;
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(|error| refusal(&error))?;
    let mut image =
        RgbImage::from_pixel(width, height, ::image::Rgb(colour(transparent.unwrap_or(0))));
    let places = (0..down).flat_map(|y| (0..across).map(move |x| (left + x, top + y)));
    for ((x, y), index) in places.zip(&indices) {
        image.put_pixel(x, y, ::image::Rgb(colour(*index)));
    }
    Ok(Picture { image, clear: transparent.map(colour) })
}

/// The colour of each index: grey where the palette says nothing else, black beyond its end.
fn colours(palette: &[u8]) -> [[u8; 3]; 256] {
    let grey = std::array::from_fn(|index| [u8::try_from(index).unwrap_or(u8::MAX); 3]);
    let given = palette.as_chunks().0;
    if given.iter().zip(&grey).all(|(given, grey)| given == grey) {
        return grey;
    }
    std::array::from_fn(|index| given.get(index).copied().unwrap_or_default())
}

fn refusal(error: &DecodingError) -> Refusal {
    if matches!(error, DecodingError::OutOfMemory | DecodingError::MemoryLimit) {
        Refusal::TooLarge
    } else {
        Refusal::Broken(error.to_string())
    }
}
