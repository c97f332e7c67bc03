//! Sizes that no array has: whatever numbers a program is built with, each operation makes an array
//! that can be, or a mistake that `finish` returns. Nothing overflows and nothing panics.

use std::sync::Arc;

use ankh_hlo::{
    AxisName, DType, DotDims, Graph, Literal, LogicalAxisRules, Mesh, PadDim, Remat, RngAlgorithm,
    ScanOptions, Shape, Sharding, Tensor,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const DATA: AxisName = AxisName::new("data");
const MODEL: AxisName = AxisName::new("model");
const BATCH: AxisName = AxisName::new("batch");
const MLP: AxisName = AxisName::new("mlp");
const EMBED: AxisName = AxisName::new("embed");

/// Around the ends of what the types hold, and small ones that do fit.
const NUMBERS: [i64; 24] = [
    i64::MIN,
    i64::MIN + 1,
    -(1 << 62),
    i32::MIN as i64 - 1,
    i32::MIN as i64,
    -3,
    -2,
    -1,
    0,
    0,
    1,
    1,
    2,
    2,
    3,
    3,
    4,
    5,
    i32::MAX as i64,
    1 << 31,
    1 << 32,
    1 << 62,
    i64::MAX - 1,
    i64::MAX,
];

const TYPES: [DType; 4] = [DType::F32, DType::U8, DType::S32, DType::Bf16];

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![8 => select(&NUMBERS[..]), 1 => any::<i64>()]
}

fn numbers() -> impl Strategy<Value = Vec<i64>> {
    vec(number(), 0..4)
}

/// The arguments of an operation besides its operand.
#[derive(Clone, Debug)]
struct Arguments {
    dtype: DType,
    lists: [Vec<i64>; 3],
    place: usize,
}

impl Arguments {
    fn shape(&self) -> Shape {
        Shape::new(self.dtype, self.lists[0].clone())
    }

    fn number(&self) -> i64 {
        self.lists[0].first().copied().unwrap_or(1)
    }

    fn pads(&self) -> Vec<PadDim> {
        let [low, high, interior] = &self.lists;
        let edges = low.iter().zip(high).zip(interior);
        let pad = |((&low, &high), &interior)| PadDim {
            low,
            high,
            interior,
        };
        edges.map(pad).collect()
    }
}

fn arguments() -> impl Strategy<Value = Arguments> {
    let lists = [numbers(), numbers(), numbers()];
    let made = (select(&TYPES[..]), lists, 0..4usize);
    made.prop_map(|(dtype, lists, place)| Arguments {
        dtype,
        lists,
        place,
    })
}

type Operation = for<'g> fn(&'g Graph, Tensor<'g>, &Arguments) -> Tensor<'g>;

/// Every operation that takes sizes, or whose result has others than its operands.
const OPERATIONS: [(&str, Operation); 41] = [
    ("parameter", |g, _, n| g.parameter("p", n.shape())),
    ("parameter_with_logical_axes", |g, _, n| {
        let names = [BATCH, MLP, EMBED];
        let rank = n.lists[0].len();
        g.parameter_with_logical_axes("p", n.shape(), &names[..rank.min(3)])
    }),
    ("sharded_parameter", |g, _, n| {
        g.sharded_parameter("p", n.shape(), sharding(n.lists[0].len()))
    }),
    ("with_sharding_constraint", |_, x, n| {
        x.with_sharding_constraint(sharding(n.place))
    }),
    ("with_logical_axes", |_, x, n| {
        x.with_logical_axes(&[BATCH, MLP, EMBED][..n.place.min(3)])
    }),
    ("full", |g, _, n| g.full(&n.shape(), 1.0)),
    ("scalar", |g, _, n| g.scalar(n.dtype, n.number() as f64)),
    ("iota", |g, _, n| g.iota(n.shape(), n.place)),
    ("broadcast_in_dims", |_, x, n| {
        x.broadcast_in_dims(&n.lists[0], &n.lists[1])
    }),
    ("broadcast_to", |_, x, n| x.broadcast_to(&n.lists[0])),
    ("reshape", |_, x, n| x.reshape(&n.lists[0])),
    ("transpose", |_, x, n| x.transpose(&n.lists[0])),
    ("slice", |_, x, n| x.slice(&n.lists[0], &n.lists[1])),
    ("strided_slice", |_, x, n| {
        x.strided_slice(&n.lists[0], &n.lists[1], &n.lists[2])
    }),
    ("strided whole", |_, x, n| {
        let strides: Vec<i64> = x.dims().iter().map(|_| n.number()).collect();
        x.strided_slice(&vec![0; x.rank()], &x.dims(), &strides)
    }),
    ("slice_dim", |_, x, n| {
        x.slice_dim(
            n.place,
            n.number(),
            n.lists[1].first().copied().unwrap_or(2),
        )
    }),
    ("dynamic_slice", |g, x, n| {
        let start = g.scalar(DType::S32, 0.0);
        x.dynamic_slice(&vec![start; x.rank()], &n.lists[0])
    }),
    ("dynamic_update_slice", |g, x, n| {
        let start = g.scalar(DType::S32, 0.0);
        let update = g.zeros(&Shape::new(x.dtype(), n.lists[0].clone()));
        x.dynamic_update_slice(update, &vec![start; x.rank()])
    }),
    ("pad", |_, x, n| {
        x.pad(&n.pads(), x.graph().scalar(x.dtype(), 0.0))
    }),
    ("pad every dimension", |_, x, n| {
        let one = n.pads().first().copied().unwrap_or_default();
        x.pad(&vec![one; x.rank()], x.graph().scalar(x.dtype(), 0.0))
    }),
    ("reverse", |_, x, n| x.reverse(&n.lists[0])),
    ("concatenate", |g, x, n| g.concatenate(&[x, x, x], n.place)),
    ("sum", |_, x, n| x.sum(&n.lists[0])),
    ("max", |_, x, n| x.max(&n.lists[0])),
    ("mean", |_, x, n| x.mean(&n.lists[0])),
    ("mean_all", |_, x, _| x.mean_all()),
    ("expand_dims", |_, x, n| x.expand_dims(&n.lists[0])),
    ("softmax", |_, x, _| x.softmax()),
    ("log_sum_exp", |_, x, _| x.log_sum_exp()),
    ("add", |g, x, n| {
        x + g.zeros(&Shape::new(x.dtype(), n.lists[0].clone()))
    }),
    ("select", |g, x, n| {
        let truth = g.zeros(&Shape::new(DType::Pred, n.lists[0].clone()));
        truth.select(x, x)
    }),
    ("dot_general", |_, x, n| {
        let [batch, contract, _] = &n.lists;
        let dims = DotDims {
            lhs_batch: batch.clone(),
            rhs_batch: batch.clone(),
            lhs_contract: contract.clone(),
            rhs_contract: contract.clone(),
        };
        x.dot_general(x, dims, None)
    }),
    ("outer product", |g, x, n| {
        let y = g.zeros(&Shape::new(x.dtype(), [n.number()]));
        g.einsum("ab,c->abc", x, y)
    }),
    ("gather_rows", |g, x, n| {
        x.gather_rows(g.zeros(&Shape::new(DType::S32, n.lists[0].clone())))
    }),
    ("scatter_add_rows", |g, x, n| {
        let at = g.zeros(&Shape::new(DType::S32, n.lists[0].clone()));
        let rows = [&n.lists[0][..], x.dims().get(1..).unwrap_or(&[])].concat();
        x.scatter_add_rows(at, g.zeros(&Shape::new(x.dtype(), rows)))
    }),
    ("random_bits", |g, _, n| {
        let state = g.zeros(&Shape::new(DType::U64, [2]));
        let shape = Shape::new(DType::U32, n.lists[0].clone());
        state.random_bits(RngAlgorithm::ThreeFry, shape).1
    }),
    ("normal", |g, _, n| {
        g.normal(g.zeros(&Shape::new(DType::U64, [2])), &n.lists[0])
    }),
    ("literal", |g, _, n| {
        let values: Vec<f32> = (0..n.place).map(|i| i as f32).collect();
        match Literal::f32(&n.lists[0], &values) {
            Some(literal) => g.literal(literal),
            None => g.zeros(&n.shape()),
        }
    }),
    ("scan of a length", |g, x, n| {
        let options = ScanOptions {
            length: Some(n.number()),
            remat: Remat::SaveAll,
            ..ScanOptions::default()
        };
        // Each step's value is stacked, and another one is for the derivative.
        let (carries, results) = g.scan(options, &[x], &[], |c, _| {
            let y = c[0].abs();
            (vec![y * y], vec![y])
        });
        results.first().copied().unwrap_or(carries[0])
    }),
    ("scan over slices", |g, x, _| {
        let results = g.scan(ScanOptions::default(), &[], &[x], |_, s| {
            (vec![], vec![s[0] * s[0]])
        });
        results.1[0]
    }),
    ("call", |g, x, n| {
        g.call("pad", &[x], |p| {
            vec![p[0].pad(&n.pads(), p[0].graph().scalar(p[0].dtype(), 0.0))]
        })[0]
    }),
];

fn mesh() -> Arc<Mesh> {
    Arc::new(Mesh::new([(DATA, 2), (MODEL, 4)]).unwrap())
}

fn sharding(rank: usize) -> Sharding {
    let dims: [&[AxisName]; 3] = [&[DATA], &[MODEL], &[]];
    Sharding::new(&mesh(), &dims[..rank.min(3)]).unwrap()
}

fn rules() -> LogicalAxisRules {
    let rules = [(BATCH, vec![DATA]), (MLP, vec![MODEL]), (EMBED, vec![])];
    LogicalAxisRules::new((*mesh()).clone(), rules).unwrap()
}

/// Operands, some of them as large as an array can be.
fn operand<'g>(g: &'g Graph, which: usize) -> Tensor<'g> {
    let shape = match which {
        0 => Shape::new(DType::F32, [2, 3]),
        1 => Shape::new(DType::F32, [4]),
        2 => Shape::new(DType::F32, []),
        3 => Shape::new(DType::F32, [1, 1]),
        4 => Shape::new(DType::F32, [0, 5]),
        5 => Shape::new(DType::U8, [i64::MAX]),
        6 => Shape::new(DType::F32, [1 << 30, 1 << 30]),
        7 => Shape::new(DType::Bf16, [1, 1 << 61]),
        _ => Shape::new(DType::S32, [1 << 33, 3]),
    };
    g.parameter("x", shape)
}

/// The bytes of an array, if no dimension is negative.
fn bytes(shape: &Shape) -> Option<u128> {
    let dims: Option<Vec<u128>> = shape.dims.iter().map(|d| u128::try_from(*d).ok()).collect();
    dims?
        .iter()
        .try_fold(shape.dtype.byte_width() as u128, |n, d| n.checked_mul(*d))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_sizes_there_is_an_array_or_a_mistake(
        which in 0..9usize,
        operation in 0..OPERATIONS.len(),
        arguments in arguments(),
        more in arguments(),
    ) {
        let g = Graph::new("extremes");
        g.set_logical_axis_rules(rules());
        let x = operand(&g, which);
        let (name, build) = OPERATIONS[operation];
        let y = build(&g, x, &arguments);
        if g.error().is_none() {
            let shape = y.shape();
            let fits = bytes(&shape).is_some_and(|bytes| bytes <= i64::MAX as u128);
            prop_assert!(fits, "{name} made {shape}");
            prop_assert_eq!(Some(u128::from(shape.bytes())), bytes(&shape));
        }
        // What comes after goes on with what there is.
        let (_, then) = OPERATIONS[(operation + more.place * 7) % OPERATIONS.len()];
        let z = then(&g, y, &more);
        let loss = match z.dtype() {
            DType::F32 => z.sum_all(),
            _ => z.convert(DType::F32).sum_all(),
        };
        let gradients = g.gradients(loss, &[x]);
        let outputs = [&[y, z], &gradients[..]].concat();
        match g.finish(&outputs, &[(0, 0)]) {
            Ok(module) => {
                module.text();
            }
            Err(error) => prop_assert!(error.location.file().ends_with("extremes.rs"), "{error}"),
        }
    }

    /// What is refused is what cannot be, and no more.
    #[test]
    fn padding_is_refused_where_the_result_cannot_be(
        which in 0..9usize,
        arguments in arguments(),
    ) {
        let g = Graph::new("pad");
        let x = operand(&g, which);
        let pads = vec![arguments.pads().first().copied().unwrap_or_default(); x.rank()];
        let size = |(p, d): (&PadDim, i64)| {
            let between = i128::from(p.interior) * i128::from((d - 1).max(0));
            let size = between + i128::from(d) + i128::from(p.low) + i128::from(p.high);
            i64::try_from(size).ok().filter(|_| p.interior >= 0)
        };
        let dims: Option<Vec<i64>> = pads.iter().zip(x.dims()).map(size).collect();
        let expected = dims.map(|dims| Shape::new(x.dtype(), dims));
        let expected = expected.filter(|shape| {
            let most = Shape::new(shape.dtype, shape.dims.iter().map(|d| if *d == 0 { 1 } else { *d }).collect::<Vec<_>>());
            bytes(&most).is_some_and(|bytes| bytes <= i64::MAX as u128)
        });
        let y = x.pad(&pads, x.graph().scalar(x.dtype(), 0.0));
        let found = g.error().is_none().then(|| y.shape());
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn the_shards_of_any_array_hold_each_element(
        dims in numbers(),
        positions in vec(number(), 1..3),
    ) {
        let whole = Sharding::new(&mesh(), &[&[MODEL, DATA]]).unwrap();
        for sharding in [whole, sharding(dims.len()), sharding(1)] {
            let shard_dims = sharding.shard_dims(&dims);
            prop_assert_eq!(shard_dims.len(), dims.len());
            for position in &positions {
                sharding.shard_ranges(*position, &dims);
            }
            prop_assert!(sharding.split_further(dims.len(), positions[0], MODEL).is_ok());
            for (dim, &size) in dims.iter().enumerate() {
                let mut ends: Vec<_> = (0..8).map(|p| sharding.shard_ranges(p, &dims)[dim].clone()).collect();
                ends.sort_by_key(|range| (range.start, range.end));
                prop_assert_eq!(ends[0].start, 0);
                prop_assert_eq!(ends[7].end, size.max(0));
                for pair in ends.windows(2) {
                    prop_assert!(pair[0] == pair[1] || pair[0].end == pair[1].start);
                }
                prop_assert!(ends.iter().all(|r| r.end - r.start <= shard_dims[dim]));
            }
        }
    }

    #[test]
    fn a_mesh_has_as_many_devices_as_can_be_counted(sizes in vec(number(), 0..5)) {
        let names = ["a", "b", "c", "d"].map(AxisName::new);
        let axes = names.into_iter().zip(sizes.iter().copied());
        let devices = sizes.iter().try_fold(1i64, |n, s| n.checked_mul(*s));
        let devices = devices.filter(|_| sizes.iter().all(|s| *s > 0));
        match Mesh::new(axes) {
            Ok(mesh) => prop_assert_eq!(Some(mesh.devices()), devices),
            // A product of sizes that are not positive is no matter.
            Err(_) => prop_assert_eq!(None, devices),
        }
    }
}
