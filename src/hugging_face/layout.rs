//! Converts bytes from one storage order or element type to another.

use super::names::Orientation;

/// Copies a matrix of 4-byte elements, [rows, columns] row-major, into `to` as [columns, rows].
/// Works tile by tile, so that both sides stay in cache.
fn transpose(from: &[u8], to: &mut [u8], rows: usize, columns: usize) {
    const TILE: usize = 32;
    let (from, to) = (from.as_chunks::<4>().0, to.as_chunks_mut::<4>().0);
    for top in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            for row in top..rows.min(top + TILE) {
                for column in left..columns.min(left + TILE) {
                    to[column * rows + row] = from[row * columns + column];
                }
            }
        }
    }
}

/// Copies one layer of a parameter, float32, between our storage order and theirs; `from` has the
/// shape `shape`.
pub(super) fn reorient(orientation: Orientation, from: &[u8], to: &mut [u8], shape: &[usize]) {
    match (orientation, shape) {
        (Orientation::Transposed, &[rows, columns]) => transpose(from, to, rows, columns),
        _ => to.copy_from_slice(from),
    }
}

/// Multiplies float32 elements, rounding once.
pub(super) fn scale(elements: &mut [u8], factor: f64) {
    for bytes in elements.as_chunks_mut::<4>().0 {
        let value = f64::from(f32::from_le_bytes(*bytes)) * factor;
        *bytes = (value as f32).to_le_bytes();
    }
}

/// How many elements lie from the first to the last one of a tensor, both included.
pub(super) fn span(shape: &[usize], strides: &[u64]) -> usize {
    if shape.contains(&0) {
        return 0;
    }
    let steps = shape.iter().zip(strides);
    let last: usize = steps
        .map(|(size, stride)| (size - 1) * *stride as usize)
        .sum();
    last + 1
}

/// The elements of a tensor, `width` bytes each, in row-major order. `bytes` has its [`span`].
pub(super) fn in_order(bytes: Vec<u8>, width: usize, shape: &[usize], strides: &[u64]) -> Vec<u8> {
    let mut expected = 1;
    let is_in_order = shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        // Along a dimension of one element, no step is taken.
        let fits = size == 1 || stride == expected;
        expected *= size as u64;
        fits
    });
    if is_in_order || bytes.is_empty() {
        return bytes;
    }
    let mut ordered = Vec::with_capacity(shape.iter().product::<usize>() * width);
    let mut at = vec![0; shape.len()];
    loop {
        let steps = at.iter().zip(strides);
        let element: usize = steps.map(|(at, stride)| at * *stride as usize).sum();
        ordered.extend_from_slice(&bytes[element * width..][..width]);
        // The next place, the last dimension fastest.
        let Some(dim) = (0..shape.len()).rev().find(|&dim| at[dim] + 1 < shape[dim]) else {
            return ordered;
        };
        at[dim] += 1;
        at[dim + 1..].fill(0);
    }
}

/// bfloat16 to float32, exactly.
pub(super) fn bf16_to_f32(from: &[u8]) -> Vec<u8> {
    from.as_chunks::<2>()
        .0
        .iter()
        .flat_map(|&[low, high]| [0, 0, low, high])
        .collect()
}

/// float16 to float32, exactly.
pub(super) fn f16_to_f32(from: &[u8]) -> Vec<u8> {
    let widen = |bytes: &[u8; 2]| {
        let half = u32::from(u16::from_le_bytes(*bytes));
        let (sign, exponent, fraction) = (half >> 15 << 31, half >> 10 & 31, half & 0x3ff);
        match exponent {
            // Subnormal: the fraction counts in units of 2^-24, which float32 holds as normal
            // numbers.
            0 => f32::from_bits((fraction as f32 / (1 << 24) as f32).to_bits() | sign),
            31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
            _ => f32::from_bits(sign | (exponent + 127 - 15) << 23 | fraction << 13),
        }
    };
    from.as_chunks::<2>()
        .0
        .iter()
        .flat_map(|bytes| widen(bytes).to_le_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_twice_gives_the_matrix_back_and_once_moves_each_element() {
        for (rows, columns) in [(1, 1), (3, 70), (33, 32), (64, 5)] {
            let matrix: Vec<u8> = (0..rows * columns)
                .flat_map(|i| (i as u32).to_le_bytes())
                .collect();
            let (mut there, mut back) = (vec![0; matrix.len()], vec![0; matrix.len()]);
            reorient(
                Orientation::Transposed,
                &matrix,
                &mut there,
                &[rows, columns],
            );
            reorient(Orientation::Transposed, &there, &mut back, &[columns, rows]);
            assert_eq!(back, matrix);
            let last_of_first_row = (columns - 1) as u32;
            assert_eq!(
                there[(columns - 1) * rows * 4..][..4],
                last_of_first_row.to_le_bytes()
            );
        }
    }

    #[test]
    fn strided_elements_come_in_row_major_order() {
        // A 2 x 3 matrix in rows of 4, and its transpose.
        let bytes: Vec<u8> = (0..7).collect();
        for (shape, strides, expected) in [
            ([2, 3], [4, 1], vec![0, 1, 2, 4, 5, 6]),
            ([3, 2], [1, 4], vec![0, 4, 1, 5, 2, 6]),
            ([1, 7], [99, 1], (0..7).collect()),
            ([2, 2], [0, 1], vec![0, 1, 0, 1]),
            ([0, 3], [3, 1], vec![]),
        ] {
            let read = bytes[..span(&shape, &strides)].to_vec();
            let ordered = in_order(read.clone(), 1, &shape, &strides);
            assert_eq!(ordered, expected, "{shape:?} {strides:?}");
            let twice = |bytes: &[u8]| bytes.iter().flat_map(|&b| [b, b + 100]).collect::<Vec<_>>();
            let ordered = in_order(twice(&read), 2, &shape, &strides);
            assert_eq!(ordered, twice(&expected), "{shape:?} {strides:?}");
        }
        assert_eq!(in_order(vec![5], 1, &[], &[]), [5]);
    }

    #[test]
    fn half_precision_widens_exactly() {
        let widened = |wide: Vec<u8>| f32::from_le_bytes(wide.try_into().unwrap());
        for (bits, value) in [
            (0x0000u16, 0.0f32),
            (0x8000, -0.0),
            (0x0001, 2f32.powi(-24)),
            (0x83ff, -1023.0 * 2f32.powi(-24)),
            (0x0400, 2f32.powi(-14)),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 1365.0 / 4096.0),
            (0x7bff, 65504.0),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(
                widened(f16_to_f32(&bits.to_le_bytes())).to_bits(),
                value.to_bits(),
                "{bits:#06x}"
            );
        }
        assert!(widened(f16_to_f32(&0x7e00u16.to_le_bytes())).is_nan());
        for value in [0.0f32, -1.5, 3.0e38, f32::INFINITY] {
            let bits = (value.to_bits() >> 16) as u16;
            assert_eq!(
                widened(bf16_to_f32(&bits.to_le_bytes())).to_bits(),
                u32::from(bits) << 16
            );
        }
    }
}
