//! Matrix products with weights that are packed once, when the model is loaded.
//!
//! ```text
//!  f32    panel = [inputs][32 outputs]                 tile = 12 rows × 32 outputs in registers (AVX-512)
//!  int8   panel = [inputs / 4][32 outputs][4 inputs]   rows = [inputs / 4][rows of the tile][4 inputs]
//! ```
//!
//! A tile walks down one panel: two loads of weights and one broadcast a row feed all its multiply-adds. Every
//! row's sums run over the inputs in the same order in every tile, so a row's bits depend neither on the rows
//! beside it nor on its place among them.
//!
//! int8 is dynamic: weights have a scale for each output (symmetric, fitted once), rows a scale and a zero point
//! each (asymmetric over the row's own range, since what follows a GELU is hardly negative). The products are
//! summed in i32, exactly.

use super::{Level, detected, level};

/// Outputs of a panel: two AVX-512 registers of f32.
const PANEL: usize = 32;

/// Inputs that one int8 instruction takes at once.
const GROUP: usize = 4;

/// Rows of a tile: 24 accumulators of AVX-512's 32 registers.
const ROWS: usize = 12;

/// A cache line, so that no load of a panel straddles two.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line<T, const N: usize>([T; N]);

/// Weights in f32.
#[derive(Debug)]
pub struct Dense {
    inputs: usize,
    outputs: usize,
    panels: Vec<Line<f32, 16>>,
}

impl Dense {
    /// Packs `weight`, `[outputs, inputs]` row-major as checkpoints store it.
    ///
    /// # Panics
    ///
    /// When its length is another: a bug of the caller.
    pub fn new(weight: &[f32], inputs: usize, outputs: usize) -> Self {
        assert!(weight.len() == inputs * outputs, "shape of a weight");
        let lines = outputs.div_ceil(PANEL) * inputs * 2;
        let mut panels = vec![Line([0.0; 16]); lines];
        for (output, row) in weight.chunks_exact(inputs.max(1)).enumerate() {
            let (panel, column) = (output / PANEL, output % PANEL);
            for (input, value) in row.iter().enumerate() {
                panels[(panel * inputs + input) * 2 + column / 16].0[column % 16] = *value;
            }
        }
        Self { inputs, outputs, panels }
    }

    /// `out = x · weightᵀ`: `x` is `[rows, inputs]`, `out` is `[rows, outputs]`, f32. One thread.
    ///
    /// # Panics
    ///
    /// When the lengths do not fit: a bug of the caller.
    pub fn product(&self, x: &[f32], out: &mut [f32]) {
        self.product_at(level(), x, out);
    }

    fn product_at(&self, level: Level, x: &[f32], out: &mut [f32]) {
        let rows = out.len() / self.outputs.max(1);
        assert!(
            x.len() == rows * self.inputs && out.len() == rows * self.outputs,
            "shapes of a product"
        );
        #[cfg(target_arch = "x86_64")]
        match level.min(detected()) {
            // SAFETY: `detected` has asked the CPU for the features, and the lengths were checked above.
            Level::Vnni | Level::Avx512 => return unsafe { x86::dense_512(self, x, out) },
            // SAFETY: as above.
            Level::Avx2 => return unsafe { x86::dense_256(self, x, out) },
            Level::Portable => (),
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _: (Level, fn() -> Level) = (level, detected);
        let lines = self.panels.chunks_exact(2 * self.inputs.max(1));
        for (row, out) in x.chunks_exact(self.inputs).zip(out.chunks_exact_mut(self.outputs)) {
            for (panel, out) in lines.clone().zip(out.chunks_mut(PANEL)) {
                let mut sums = [0.0_f32; PANEL];
                for (value, weights) in row.iter().zip(panel.as_chunks::<2>().0) {
                    let weights = weights[0].0.iter().chain(&weights[1].0);
                    sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += value * weight);
                }
                out.copy_from_slice(&sums[..out.len()]);
            }
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.panels[..])
    }
}

/// Weights in int8, with a scale for each output.
#[derive(Debug)]
pub struct Int8 {
    inputs: usize,
    outputs: usize,
    /// `inputs` up to a whole group.
    groups: usize,
    panels: Vec<Line<i8, 64>>,
    /// By output, up to a whole panel.
    scales: Vec<f32>,
    /// Sum of an output's weights: what a row's zero point adds to its sum.
    sums: Vec<i32>,
}

/// Rows in u8: value = scale × (byte − zero).
#[derive(Debug, Default)]
pub struct Rows {
    /// Tile by tile: `[groups][rows of the tile][4]`.
    bytes: Vec<u8>,
    scales: Vec<f32>,
    zeros: Vec<i32>,
}

impl Int8 {
    /// Quantises and packs `weight`, `[outputs, inputs]` row-major. Weights are −127 to 127.
    ///
    /// # Panics
    ///
    /// When its length is another: a bug of the caller.
    pub fn new(weight: &[f32], inputs: usize, outputs: usize) -> Self {
        assert!(weight.len() == inputs * outputs, "shape of a weight");
        let groups = inputs.div_ceil(GROUP);
        let whole = outputs.next_multiple_of(PANEL);
        let mut panels = vec![Line([0_i8; 64]); whole / PANEL * groups * 2];
        let (mut scales, mut sums) = (vec![0.0; whole], vec![0; whole]);
        for (output, row) in weight.chunks_exact(inputs.max(1)).enumerate() {
            let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let scale = (largest / 127.0).max(f32::MIN_POSITIVE);
            scales[output] = scale;
            let (panel, column) = (output / PANEL, output % PANEL);
            for (input, value) in row.iter().enumerate() {
                #[expect(clippy::cast_possible_truncation, reason = "rounded and within ±127")]
                let byte = (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
                sums[output] += i32::from(byte);
                let line = (panel * groups + input / GROUP) * 2 + column / 16;
                panels[line].0[column % 16 * GROUP + input % GROUP] = byte;
            }
        }
        Self { inputs, outputs, groups, panels, scales, sums }
    }

    /// `out = x · weightᵀ` with `x` quantised row by row: `x` is `[rows, inputs]`, `out` is `[rows, outputs]`, f32.
    /// One thread.
    ///
    /// # Panics
    ///
    /// When the lengths do not fit: a bug of the caller.
    pub fn product(&self, x: &[f32], out: &mut [f32], rows: &mut Rows) {
        self.product_at(level(), x, out, rows);
    }

    fn product_at(&self, level: Level, x: &[f32], out: &mut [f32], rows: &mut Rows) {
        let count = out.len() / self.outputs.max(1);
        assert!(
            x.len() == count * self.inputs && out.len() == count * self.outputs,
            "shapes of a product"
        );
        let level = level.min(detected());
        // Without VNNI pairs of products are summed in i16: 127 × 127 × 2 fits, 255 × 127 × 2 does not.
        let (most, tile) = match level {
            Level::Vnni => (255, ROWS),
            Level::Avx512 | Level::Avx2 => (127, 4),
            Level::Portable => (255, 4),
        };
        quantise(level, x, self.inputs, (most, tile), rows);
        #[cfg(target_arch = "x86_64")]
        match level {
            // SAFETY: `detected` has asked the CPU for the features; the lengths were checked above, and
            // `quantise` has filled `rows` for this many inputs in tiles of this many rows.
            Level::Vnni => return unsafe { x86::int8_vnni(self, rows, out) },
            // SAFETY: as above.
            Level::Avx512 | Level::Avx2 => return unsafe { x86::int8_256(self, rows, out) },
            Level::Portable => (),
        }
        self.portable(rows, out);
    }

    /// The product of rows in tiles of 4, on any CPU: the scalar twin of the others.
    fn portable(&self, rows: &Rows, out: &mut [f32]) {
        const TILE: usize = 4;
        let mut done = 0;
        let tiles = rows.bytes.chunks(self.groups * TILE * GROUP);
        for (tile, out) in tiles.zip(out.chunks_mut(TILE * self.outputs)) {
            let height = out.len() / self.outputs;
            for (row, out) in out.chunks_exact_mut(self.outputs).enumerate() {
                for (panel, out) in out.chunks_mut(PANEL).enumerate() {
                    let mut sums = [0_i32; PANEL];
                    for group in 0..self.groups {
                        let values = &tile[(group * height + row) * GROUP..][..GROUP];
                        let lines = &self.panels[(panel * self.groups + group) * 2..][..2];
                        for (column, sum) in sums.iter_mut().enumerate() {
                            let weights = &lines[column / 16].0[column % 16 * GROUP..][..GROUP];
                            let pairs = values.iter().zip(weights);
                            *sum += pairs.map(|(v, w)| i32::from(*v) * i32::from(*w)).sum::<i32>();
                        }
                    }
                    self.finish(rows, done + row, panel, &sums, out);
                }
            }
            done += height;
        }
    }

    /// Sums of a row and a panel, as f32.
    #[expect(clippy::cast_precision_loss, reason = "a sum is rounded to f32 once")]
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled into the variant of each CPU")]
    fn finish(&self, rows: &Rows, row: usize, panel: usize, sums: &[i32; PANEL], out: &mut [f32]) {
        let (scale, zero) = (rows.scales[row], rows.zeros[row]);
        let first = panel * PANEL;
        for (column, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
            let exact = sum - zero * self.sums[first + column];
            *out = exact as f32 * (scale * self.scales[first + column]);
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.panels[..]) + size_of_val(&self.scales[..]) * 2
    }
}

/// Quantises rows of `inputs` values to 0 … `most` and lays them out in tiles of so many rows.
fn quantise(level: Level, x: &[f32], inputs: usize, (most, tile): (u8, usize), rows: &mut Rows) {
    let groups = inputs.div_ceil(GROUP);
    let count = x.len() / inputs.max(1);
    rows.bytes.resize(count * groups * GROUP, 0);
    rows.scales.resize(count, 0.0);
    rows.zeros.resize(count, 0);
    let tiles = x.chunks(tile * inputs).zip(rows.bytes.chunks_mut(tile * groups * GROUP));
    let parameters = rows.scales.chunks_mut(tile).zip(rows.zeros.chunks_mut(tile));
    for ((x, bytes), (scales, zeros)) in tiles.zip(parameters) {
        #[cfg(target_arch = "x86_64")]
        match level {
            // SAFETY: `level` is at most what `detected` found.
            Level::Vnni | Level::Avx512 => unsafe {
                x86::tile_512(x, bytes, most, scales, zeros);
                continue;
            },
            // SAFETY: as above.
            Level::Avx2 => unsafe {
                x86::tile_256(x, bytes, most, scales, zeros);
                continue;
            },
            Level::Portable => (),
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _: Level = level;
        quantise_tile(x, bytes, most, scales, zeros);
    }
}

/// One tile: `scales.len()` rows.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled into the variant of each CPU")]
fn quantise_tile(x: &[f32], bytes: &mut [u8], most: u8, scales: &mut [f32], zeros: &mut [i32]) {
    let height = scales.len();
    let inputs = x.len() / height;
    for (row, values) in x.chunks_exact(inputs).enumerate() {
        let (low, high) = range(values);
        let scale = ((high - low) / f32::from(most)).max(f32::MIN_POSITIVE);
        let inverse = 1.0 / scale;
        // Adding 1.5 · 2^23 rounds to the nearest integer, which then is in the low bits.
        let zero = bits(-low * inverse);
        scales[row] = scale;
        zeros[row] = zero;
        let (groups, rest) = values.as_chunks::<GROUP>();
        let mut out = bytes.chunks_exact_mut(GROUP).skip(row).step_by(height);
        let quantised = |value: f32| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
            let byte = (bits(value * inverse) + zero).clamp(0, i32::from(most)) as u8;
            byte
        };
        for group in groups {
            if let Some(out) = out.next() {
                out.iter_mut().zip(group).for_each(|(byte, value)| *byte = quantised(*value));
            }
        }
        if let (Some(out), false) = (out.next(), rest.is_empty()) {
            // Weights behind the last input are 0: what stands there adds nothing.
            out.iter_mut().zip(rest).for_each(|(byte, value)| *byte = quantised(*value));
        }
    }
}

/// Nearest integer of |x| < 2^22, halves to even.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled into the variant of each CPU")]
fn bits(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x007f_ffff).cast_signed() - 0x0040_0000
}

/// Smallest and largest value, 0 included.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled into the variant of each CPU")]
fn range(values: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([0.0_f32; 16], [0.0_f32; 16]);
    let (blocks, rest) = values.as_chunks::<16>();
    for block in blocks {
        for lane in 0..16 {
            low[lane] = if block[lane] < low[lane] { block[lane] } else { low[lane] };
            high[lane] = if high[lane] < block[lane] { block[lane] } else { high[lane] };
        }
    }
    let start = (low.iter().copied().fold(0.0, f32::min), high.iter().copied().fold(0.0, f32::max));
    rest.iter().fold(start, |(low, high), value| (low.min(*value), high.max(*value)))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Dense, GROUP, Int8, PANEL, ROWS, Rows, quantise_tile};

    /// # Safety
    ///
    /// AVX-512 F.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn tile_512(
        x: &[f32],
        bytes: &mut [u8],
        most: u8,
        scales: &mut [f32],
        zeros: &mut [i32],
    ) {
        quantise_tile(x, bytes, most, scales, zeros);
    }

    /// # Safety
    ///
    /// AVX2.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn tile_256(
        x: &[f32],
        bytes: &mut [u8],
        most: u8,
        scales: &mut [f32],
        zeros: &mut [i32],
    ) {
        quantise_tile(x, bytes, most, scales, zeros);
    }

    /// Calls `$tile::<N>` for the rows that are left, at most 12.
    macro_rules! by_height {
        ($height:expr, $tile:ident, $arguments:tt) => {
            match $height {
                12 => $tile::<12> $arguments,
                11 => $tile::<11> $arguments,
                10 => $tile::<10> $arguments,
                9 => $tile::<9> $arguments,
                8 => $tile::<8> $arguments,
                7 => $tile::<7> $arguments,
                6 => $tile::<6> $arguments,
                5 => $tile::<5> $arguments,
                4 => $tile::<4> $arguments,
                3 => $tile::<3> $arguments,
                2 => $tile::<2> $arguments,
                _ => $tile::<1> $arguments,
            }
        };
    }

    /// # Safety
    ///
    /// AVX-512 F; `x` and `out` have the lengths that [`Dense::product`] checks.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn dense_512(weight: &Dense, x: &[f32], out: &mut [f32]) {
        let Dense { inputs, outputs, ref panels } = *weight;
        let rows = out.len() / outputs;
        for panel in 0..outputs.div_ceil(PANEL) {
            // SAFETY: `panels` holds `2 × inputs` lines for each panel.
            let weights = unsafe { panels.as_ptr().add(panel * inputs * 2) }.cast::<f32>();
            let width = PANEL.min(outputs - panel * PANEL);
            let mut row = 0;
            while row < rows {
                let height = ROWS.min(rows - row);
                // SAFETY: rows `row..row + height` are inside both, and `width` columns inside `out`.
                unsafe {
                    let x = x.as_ptr().add(row * inputs);
                    let out = out.as_mut_ptr().add(row * outputs + panel * PANEL);
                    by_height!(height, dense_tile_512, (x, weights, inputs, out, outputs, width));
                }
                row += height;
            }
        }
    }

    /// Which of 32 columns there are.
    #[target_feature(enable = "avx512f")]
    fn masks(width: usize) -> [__mmask16; 2] {
        let all = (1_u64 << width) - 1;
        [(all & 0xffff) as u16, (all >> 16) as u16]
    }

    /// # Safety
    ///
    /// AVX-512 F; `R` rows of `inputs` at `x`, a panel at `weights`, `R` rows of `width` with stride `stride` at `out`.
    #[target_feature(enable = "avx512f")]
    unsafe fn dense_tile_512<const R: usize>(
        x: *const f32,
        weights: *const f32,
        inputs: usize,
        out: *mut f32,
        stride: usize,
        width: usize,
    ) {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        for input in 0..inputs {
            // SAFETY: the caller's.
            unsafe {
                let left = _mm512_load_ps(weights.add(input * PANEL));
                let right = _mm512_load_ps(weights.add(input * PANEL + 16));
                for row in 0..R {
                    let value = _mm512_set1_ps(*x.add(row * inputs + input));
                    sums[row][0] = _mm512_fmadd_ps(value, left, sums[row][0]);
                    sums[row][1] = _mm512_fmadd_ps(value, right, sums[row][1]);
                }
            }
        }
        let masks = masks(width);
        for row in 0..R {
            // SAFETY: the caller's; columns behind `width` are masked.
            unsafe {
                _mm512_mask_storeu_ps(out.add(row * stride), masks[0], sums[row][0]);
                if masks[1] != 0 {
                    _mm512_mask_storeu_ps(out.add(row * stride + 16), masks[1], sums[row][1]);
                }
            }
        }
    }

    /// # Safety
    ///
    /// AVX2 and FMA; `x` and `out` have the lengths that [`Dense::product`] checks.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn dense_256(weight: &Dense, x: &[f32], out: &mut [f32]) {
        let Dense { inputs, outputs, ref panels } = *weight;
        let rows = out.len() / outputs;
        for half in 0..outputs.div_ceil(16) {
            // SAFETY: half a panel begins 16 columns into its first line pair.
            let weights = unsafe {
                panels.as_ptr().cast::<f32>().add(half / 2 * inputs * PANEL + half % 2 * 16)
            };
            let width = 16.min(outputs - half * 16);
            let mut row = 0;
            while row < rows {
                let height = 6.min(rows - row);
                let mut tile = [[0.0_f32; 16]; 6];
                // SAFETY: rows `row..row + height` are inside `x`.
                unsafe {
                    let x = x.as_ptr().add(row * inputs);
                    match height {
                        6 => dense_tile_256::<6>(x, weights, inputs, &mut tile),
                        5 => dense_tile_256::<5>(x, weights, inputs, &mut tile),
                        4 => dense_tile_256::<4>(x, weights, inputs, &mut tile),
                        3 => dense_tile_256::<3>(x, weights, inputs, &mut tile),
                        2 => dense_tile_256::<2>(x, weights, inputs, &mut tile),
                        _ => dense_tile_256::<1>(x, weights, inputs, &mut tile),
                    }
                }
                for (place, values) in tile[..height].iter().enumerate() {
                    out[(row + place) * outputs + half * 16..][..width]
                        .copy_from_slice(&values[..width]);
                }
                row += height;
            }
        }
    }

    /// # Safety
    ///
    /// AVX2 and FMA; `R` rows of `inputs` at `x`, half a panel at `weights`.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn dense_tile_256<const R: usize>(
        x: *const f32,
        weights: *const f32,
        inputs: usize,
        out: &mut [[f32; 16]; 6],
    ) {
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        for input in 0..inputs {
            // SAFETY: the caller's.
            unsafe {
                let left = _mm256_load_ps(weights.add(input * PANEL));
                let right = _mm256_load_ps(weights.add(input * PANEL + 8));
                for row in 0..R {
                    let value = _mm256_set1_ps(*x.add(row * inputs + input));
                    sums[row][0] = _mm256_fmadd_ps(value, left, sums[row][0]);
                    sums[row][1] = _mm256_fmadd_ps(value, right, sums[row][1]);
                }
            }
        }
        for row in 0..R {
            // SAFETY: a row of `out` is 16 wide.
            unsafe {
                _mm256_storeu_ps(out[row].as_mut_ptr(), sums[row][0]);
                _mm256_storeu_ps(out[row].as_mut_ptr().add(8), sums[row][1]);
            }
        }
    }

    /// # Safety
    ///
    /// AVX-512 F, BW and VNNI; `rows` was quantised in tiles of [`ROWS`] for this weight, `out` fits both.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) unsafe fn int8_vnni(weight: &Int8, rows: &Rows, out: &mut [f32]) {
        let Int8 { outputs, groups, .. } = *weight;
        let count = out.len() / outputs;
        for panel in 0..outputs.div_ceil(PANEL) {
            let mut row = 0;
            while row < count {
                let height = ROWS.min(count - row);
                // SAFETY: a tile's bytes begin where the rows before it end; `out` holds its rows.
                unsafe {
                    let bytes = rows.bytes.as_ptr().add(row * groups * GROUP);
                    let out = out.as_mut_ptr().add(row * outputs + panel * PANEL);
                    let scales = rows.scales.as_ptr().add(row);
                    let zeros = rows.zeros.as_ptr().add(row);
                    by_height!(
                        height,
                        int8_tile_vnni,
                        (weight, panel, bytes, (scales, zeros), out)
                    );
                }
                row += height;
            }
        }
    }

    /// # Safety
    ///
    /// As [`int8_vnni`], with `R` rows left.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn int8_tile_vnni<const R: usize>(
        weight: &Int8,
        panel: usize,
        bytes: *const u8,
        (scales, zeros): (*const f32, *const i32),
        out: *mut f32,
    ) {
        let Int8 { outputs, groups, .. } = *weight;
        let mut sums = [[_mm512_setzero_si512(); 2]; R];
        // SAFETY: `panels` holds `2 × groups` lines for each panel.
        let lines = unsafe { weight.panels.as_ptr().add(panel * groups * 2) }.cast::<__m512i>();
        for group in 0..groups {
            // SAFETY: as above; the tile holds `R` groups of 4 bytes for each group of inputs.
            unsafe {
                let left = _mm512_load_si512(lines.add(group * 2));
                let right = _mm512_load_si512(lines.add(group * 2 + 1));
                for row in 0..R {
                    let four = bytes.add((group * R + row) * GROUP).cast::<i32>().read_unaligned();
                    let values = _mm512_set1_epi32(four);
                    sums[row][0] = _mm512_dpbusd_epi32(sums[row][0], values, left);
                    sums[row][1] = _mm512_dpbusd_epi32(sums[row][1], values, right);
                }
            }
        }
        let width = PANEL.min(outputs - panel * PANEL);
        let masks = masks(width);
        for half in 0..2 {
            let first = panel * PANEL + half * 16;
            // SAFETY: scales and sums are whole panels long; rows and columns of `out` as the caller says.
            unsafe {
                let by_output = _mm512_loadu_ps(weight.scales.as_ptr().add(first));
                let sum = _mm512_loadu_si512(weight.sums.as_ptr().add(first).cast());
                for row in 0..R {
                    let shift = _mm512_mullo_epi32(_mm512_set1_epi32(*zeros.add(row)), sum);
                    let exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[row][half], shift));
                    let scale = _mm512_mul_ps(_mm512_set1_ps(*scales.add(row)), by_output);
                    let value = _mm512_mul_ps(exact, scale);
                    if masks[half] != 0 {
                        let out = out.add(row * outputs + half * 16);
                        _mm512_mask_storeu_ps(out, masks[half], value);
                    }
                }
            }
        }
    }

    /// # Safety
    ///
    /// AVX2; `rows` was quantised to at most 127 in tiles of 4 for this weight, `out` fits both.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn int8_256(weight: &Int8, rows: &Rows, out: &mut [f32]) {
        let Int8 { outputs, groups, .. } = *weight;
        let count = out.len() / outputs;
        for panel in 0..outputs.div_ceil(PANEL) {
            let width = PANEL.min(outputs - panel * PANEL);
            let mut row = 0;
            while row < count {
                let height = 4.min(count - row);
                let mut sums = [[0_i32; PANEL]; 4];
                // SAFETY: a tile's bytes begin where the rows before it end.
                unsafe {
                    let bytes = rows.bytes.as_ptr().add(row * groups * GROUP);
                    match height {
                        4 => int8_tile_256::<4>(weight, panel, bytes, &mut sums),
                        3 => int8_tile_256::<3>(weight, panel, bytes, &mut sums),
                        2 => int8_tile_256::<2>(weight, panel, bytes, &mut sums),
                        _ => int8_tile_256::<1>(weight, panel, bytes, &mut sums),
                    }
                }
                for (place, sums) in sums[..height].iter().enumerate() {
                    let out = &mut out[(row + place) * outputs + panel * PANEL..][..width];
                    weight.finish(rows, row + place, panel, sums, out);
                }
                row += height;
            }
        }
    }

    /// # Safety
    ///
    /// As [`int8_256`], with `R` rows left.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn int8_tile_256<const R: usize>(
        weight: &Int8,
        panel: usize,
        bytes: *const u8,
        out: &mut [[i32; PANEL]; 4],
    ) {
        let groups = weight.groups;
        // SAFETY: `panels` holds `2 × groups` lines for each panel.
        let lines = unsafe { weight.panels.as_ptr().add(panel * groups * 2) }.cast::<i8>();
        let ones = _mm256_set1_epi16(1);
        for half in 0..2 {
            let mut sums = [[_mm256_setzero_si256(); 2]; R];
            for group in 0..groups {
                // SAFETY: as above; the tile holds `R` groups of 4 bytes for each group of inputs.
                unsafe {
                    let line = lines.add((group * 2 + half) * 64).cast::<__m256i>();
                    let (left, right) = (_mm256_load_si256(line), _mm256_load_si256(line.add(1)));
                    for row in 0..R {
                        let four =
                            bytes.add((group * R + row) * GROUP).cast::<i32>().read_unaligned();
                        let values = _mm256_set1_epi32(four);
                        let wide = _mm256_madd_epi16(_mm256_maddubs_epi16(values, left), ones);
                        sums[row][0] = _mm256_add_epi32(sums[row][0], wide);
                        let wide = _mm256_madd_epi16(_mm256_maddubs_epi16(values, right), ones);
                        sums[row][1] = _mm256_add_epi32(sums[row][1], wide);
                    }
                }
            }
            for row in 0..R {
                // SAFETY: a row of `out` is 32 wide.
                unsafe {
                    let out = out[row].as_mut_ptr().add(half * 16).cast::<__m256i>();
                    _mm256_storeu_si256(out, sums[row][0]);
                    _mm256_storeu_si256(out.add(1), sums[row][1]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEVELS: [Level; 4] = [Level::Portable, Level::Avx2, Level::Avx512, Level::Vnni];

    /// Shapes with a rest in every dimension, and values for both matrices.
    fn case() -> impl Strategy<Value = (usize, usize, usize, Vec<f32>, Vec<f32>)> {
        (1..30_usize, 1..70_usize, 1..80_usize).prop_flat_map(|(rows, inputs, outputs)| {
            let values = |length| prop::collection::vec(-3.0_f32..3.0, length);
            let (x, weight) = (values(rows * inputs), values(inputs * outputs));
            (Just(rows), Just(inputs), Just(outputs), x, weight)
        })
    }

    /// The product as it is defined, in f64.
    fn reference(x: &[f32], weight: &[f32], inputs: usize) -> Vec<f64> {
        let dot = |x: &[f32], w: &[f32]| -> f64 {
            x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
        };
        x.chunks(inputs).flat_map(|x| weight.chunks(inputs).map(move |w| dot(x, w))).collect()
    }

    proptest! {
        #[test]
        fn dense_is_the_definition((rows, inputs, outputs, x, weight) in case()) {
            let packed = Dense::new(&weight, inputs, outputs);
            let expect = reference(&x, &weight, inputs);
            for level in LEVELS {
                let mut got = vec![f32::NAN; rows * outputs];
                packed.product_at(level, &x, &mut got);
                for (got, expect) in got.iter().zip(&expect) {
                    prop_assert!((f64::from(*got) - expect).abs() < 1e-4, "{level:?}: {got} {expect}");
                }
                for row in 0..rows {
                    let mut alone = vec![f32::NAN; outputs];
                    packed.product_at(level, &x[row * inputs..][..inputs], &mut alone);
                    prop_assert_eq!(&alone[..], &got[row * outputs..][..outputs], "row-independent");
                }
            }
        }

        /// Within what rounding to 8 (without VNNI 7) bits may cost, and the same as in Rust on integers.
        #[test]
        fn int8_is_close_and_exact_on_integers((rows, inputs, outputs, x, weight) in case()) {
            let packed = Int8::new(&weight, inputs, outputs);
            let expect = reference(&x, &weight, inputs);
            let mut first: Option<Vec<f32>> = None;
            for level in LEVELS {
                let mut got = vec![f32::NAN; rows * outputs];
                packed.product_at(level, &x, &mut got, &mut Rows::default());
                // Half a step of each factor, times the other's largest, a term.
                let step = 6.0 / 127.0 / 2.0 * 3.0 + 3.0 / 127.0 / 2.0 * 3.0 + 0.01;
                let tolerance = step * f64::from(u32::try_from(inputs).unwrap());
                for (got, expect) in got.iter().zip(&expect) {
                    prop_assert!((f64::from(*got) - expect).abs() < tolerance, "{level:?}");
                }
                if level == Level::Portable {
                    first = Some(got);
                } else if level == Level::Vnni && detected() == Level::Vnni {
                    prop_assert_eq!(first.as_ref(), Some(&got), "VNNI and its scalar twin");
                }
            }
        }

        /// The AVX2 tile against its scalar twin, on the 7 bits that it takes.
        #[test]
        fn avx2_is_its_scalar_twin((rows, inputs, outputs, x, weight) in case()) {
            let packed = Int8::new(&weight, inputs, outputs);
            let mut quantised = Rows::default();
            let (mut got, mut expect) = (vec![0.0; rows * outputs], vec![0.0; rows * outputs]);
            quantise(Level::Portable, &x, inputs, (127, 4), &mut quantised);
            packed.portable(&quantised, &mut expect);
            packed.product_at(Level::Avx2, &x, &mut got, &mut Rows::default());
            if Level::Avx2 <= detected() {
                prop_assert_eq!(got, expect);
            }
        }

        #[test]
        fn int8_is_row_independent((rows, inputs, outputs, x, weight) in case()) {
            let packed = Int8::new(&weight, inputs, outputs);
            for level in LEVELS {
                let mut got = vec![f32::NAN; rows * outputs];
                let mut scratch = Rows::default();
                packed.product_at(level, &x, &mut got, &mut scratch);
                for row in 0..rows {
                    let mut alone = vec![f32::NAN; outputs];
                    packed.product_at(level, &x[row * inputs..][..inputs], &mut alone, &mut scratch);
                    prop_assert_eq!(&alone[..], &got[row * outputs..][..outputs]);
                }
            }
        }

        #[test]
        fn a_row_comes_back_within_half_a_step(x in prop::collection::vec(-9.0_f32..2.0, 1..50)) {
            let mut rows = Rows::default();
            quantise(Level::Portable, &x, x.len(), (255, 4), &mut rows);
            for (value, byte) in x.iter().zip(&rows.bytes) {
                let back = rows.scales[0] * (i32::from(*byte) - rows.zeros[0]) as f32;
                prop_assert!((value - back).abs() <= rows.scales[0] * 0.501, "{value} {back}");
            }
        }
    }

    #[test]
    fn rows_of_zeros_and_constants_are_products_too() {
        for value in [0.0, 1.0, -2.5] {
            let (x, weight) = (vec![value; 8], vec![0.5; 8 * 3]);
            let mut got = vec![f32::NAN; 3];
            Int8::new(&weight, 8, 3).product(&x, &mut got, &mut Rows::default());
            assert!(got.iter().all(|got| (got - value * 4.0).abs() < 0.05), "{value}: {got:?}");
        }
    }
}
