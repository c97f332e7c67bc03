//! Attention of packed rows by blocks against attention by the formula.

use ankh::model::attention::{
    AttentionMask, BLOCK, Bias, Segments, block_weighted_sum, relative_by_blocks, weighted_sum,
};
use ankh::model::position::{Direction, bias};
use ankh_hlo::{DType, Graph, Literal, Shape};
use ankh_pjrt::HostTensor;

use crate::support::{Random, compile, run};

/// Rows of several segments, some shorter than a block, some over several, and padding: blocks of
/// it, and a row of nothing else.
#[test]
fn blocks_give_what_the_formula_gives() {
    let (heads, kv, length) = (3, 8, 5 * BLOCK);
    let rows: [&[i64]; 4] = [
        &[200, 3, 1, 130, 90],
        &[5, 5 * BLOCK - 5],
        &[BLOCK, BLOCK],
        &[],
    ];
    let batch = rows.len() as i64;
    let mut segments = vec![];
    for row in rows {
        let numbered = (1..).zip(row);
        let numbers = numbered.flat_map(|(number, &count)| vec![number; count as usize]);
        segments.extend(numbers.chain([0; 640]).take(length as usize));
    }
    for (buckets, max_distance) in [(32, 128), (8, 20), (64, 300)] {
        let g = Graph::new("attention");
        let operand = Shape::new(DType::F64, [batch, heads, length, kv]);
        let [q, k, v] = ["q", "k", "v"].map(|name| g.parameter(name, operand.clone()));
        let table = g.parameter("table", Shape::new(DType::F64, [buckets, heads]));
        let numbers = g.literal(Literal::s32(&[batch, length], &segments).unwrap());
        let of_rows = Segments {
            queries: numbers,
            keys: numbers,
            direction: Direction::Bidirectional,
        };
        let bias = Bias {
            relative: Some(bias(table, Direction::Bidirectional, max_distance, length)),
            mask: AttentionMask::Segments(of_rows),
        };
        let blocks = relative_by_blocks(table, max_distance);
        let outputs = [
            weighted_sum(q, k, v, bias),
            block_weighted_sum([q, k, v], Some(blocks), of_rows),
        ];
        let program = compile(&g.finish(&outputs, &[]).unwrap());
        let random = &mut Random(buckets as u64);
        let inputs = [&operand, &operand, &operand, &table.shape()].map(|shape| {
            let values = random.signed(shape.elements());
            let values: Vec<f64> = values.into_iter().map(|x| 3.0 * x).collect();
            HostTensor::new::<f64>(shape.dims.clone(), &values)
        });
        let outputs = run(&program, &inputs);
        let [expected, found] = [0, 1].map(|i: usize| outputs[i].to_vec::<f64>().unwrap());
        assert!(found.iter().all(|x| x.is_finite()));
        let mut compared = 0;
        for (i, (expected, found)) in expected.iter().zip(&found).enumerate() {
            let position = (i as i64 / kv) % length;
            let row = i as i64 / (kv * length * heads);
            if segments[(row * length + position) as usize] > 0 {
                // Rounding, of sums of at most 640 terms.
                assert!(
                    (expected - found).abs() < 1e-12,
                    "{expected} is {found} at {i}"
                );
                compared += 1;
            }
        }
        assert_eq!(compared, (424 + 640 + 256) * heads * kv);
    }
}

#[test]
fn blocks_refuse_what_they_do_not_compute() {
    let refusal = |length: i64, direction: Direction, biased: bool| {
        let g = Graph::new("attention");
        let x = g.parameter("x", Shape::new(DType::F32, [1, 2, length, 8]));
        let table = g.parameter("table", Shape::new(DType::F32, [32, 2]));
        let numbers = g.parameter("segments", Shape::new(DType::S32, [1, length]));
        let segments = Segments {
            queries: numbers,
            keys: numbers,
            direction,
        };
        let relative = biased.then(|| relative_by_blocks(table, 128));
        let y = block_weighted_sum([x, x, x], relative, segments);
        g.finish(&[y], &[]).err().map(|error| error.to_string())
    };
    use Direction::{Bidirectional, Causal};
    assert_eq!(refusal(2 * BLOCK, Bidirectional, true), None);
    for (length, direction, biased, words) in [
        (100, Bidirectional, true, "100 queries and 100 keys"),
        (BLOCK, Causal, true, "later ones too"),
        (BLOCK, Bidirectional, false, "no relative bias"),
    ] {
        let refused = refusal(length, direction, biased).unwrap();
        assert!(refused.contains(words), "{refused}");
    }
}
