//! Sequences laid out as programs take them.

use ankh_data::tokenizer::PAD;
use ankh_pjrt::HostTensor;

/// `input_ids` and `attention_mask`, s32 `[rows, length]`, of encoder inputs, which end with `</s>`
/// already. Rows beyond the inputs are padding, of which the first token is seen, so that no row is
/// without one.
///
/// # Panics
/// Where an input is longer than `length`, or there are more inputs than `rows`.
pub fn input_batch(inputs: &[impl AsRef<[u8]>], rows: usize, length: usize) -> [HostTensor; 2] {
    assert!(
        inputs.len() <= rows,
        "{} inputs in {rows} rows",
        inputs.len()
    );
    let mut ids = vec![i32::from(PAD); rows * length];
    let mut mask = vec![0i32; rows * length];
    for row in 0..rows {
        let input = inputs.get(row).map_or(&[PAD][..], AsRef::as_ref);
        let start = row * length;
        for (place, &id) in input.iter().enumerate() {
            assert!(
                place < length,
                "{} tokens in a row of {length}",
                input.len()
            );
            ids[start + place] = id.into();
            mask[start + place] = 1;
        }
    }
    let dims = [rows as i64, length as i64];
    [&ids, &mask].map(|values| HostTensor::new::<i32>(dims, values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_and_none_is_empty() {
        let [ids, mask] = input_batch(&[&[5u8, 6, 1][..], &[7, 1]], 3, 4);
        let ids: Vec<i32> = ids.to_vec().unwrap();
        let mask: Vec<i32> = mask.to_vec().unwrap();
        assert_eq!(ids, [5, 6, 1, 0, 7, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(mask, [1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0]);
    }
}
