//! Where a program's arrays lie: in equal parts, on one mesh, and where its specs say; what cannot
//! be so is an error that names the array, the dimension and the axis.

mod support;

use std::panic::Location;
use std::sync::Arc;

use ankh_hlo::{
    AxisName, DType, Error, Graph, LogicalAxisRules, Mesh, Module, Shape, Sharding, ShardingForm,
    Tensor,
};
use ankh_pjrt::{Argument, CompileOptions, HostTensor, Partitioner, Program};

const DATA: AxisName = AxisName::new("data");
const MODEL: AxisName = AxisName::new("model");
const FSDP: AxisName = AxisName::new("fsdp");
const ONE: AxisName = AxisName::new("one");

/// The mistake that `build` makes with x: f32[2,3], at its own line.
#[track_caller]
fn mistake(build: impl for<'g> FnOnce(&'g Graph, Tensor<'g>)) -> Error {
    let g = Graph::new("shardings");
    let x = g.parameter("x", Shape::new(DType::F32, [2, 3]));
    build(&g, x);
    let error = g.error().expect("a mistake");
    let lines = Location::caller().line()..=Location::caller().line() + 8;
    assert!(
        error.location.file().ends_with("tests/sharded.rs"),
        "{error}"
    );
    assert!(lines.contains(&error.location.line()), "{lines:?}: {error}");
    error
}

/// The error says all of `parts`.
fn says(error: &Error, operation: &str, parts: &[&str]) {
    assert_eq!(error.operation, operation, "{error}");
    for part in parts {
        assert!(error.problem.contains(part), "`{part}` is not in: {error}");
    }
}

/// A mesh of 2 by 4 devices, and the sharding of an array over it.
fn over(dims: &[&[AxisName]]) -> Sharding {
    let mesh = Mesh::new([(DATA, 2), (MODEL, 4), (ONE, 1)]).unwrap();
    Sharding::new(&Arc::new(mesh), dims).unwrap()
}

#[test]
fn parameters_and_results_are_split_into_equal_parts() {
    let rows = |n: i64| Shape::new(DType::F32, [n, 3]);
    let split = || over(&[&[DATA], &[]]);
    says(
        &mistake(|g, _| {
            let _ = g.sharded_parameter("rows", rows(5), split());
        }),
        "parameter",
        &[
            "`rows`",
            "f32[5,3]",
            "dimension `0` of size 5",
            "2 equal",
            "`data`",
        ],
    );
    says(
        &mistake(|g, _| {
            let _ = g.sharded_parameter("rows", rows(6), over(&[&[DATA, MODEL], &[]]));
        }),
        "parameter",
        &["`rows`", "8 equal parts", "`model`"],
    );
    says(
        &mistake(|g, _| {
            let _ = g.sharded_parameter("rows", rows(4), over(&[&[DATA]]));
        }),
        "parameter",
        &["`rows`", "1 dimensions", "f32[4,3]"],
    );
    says(
        &mistake(|g, x| {
            let result = x.with_sharding_constraint(over(&[&[], &[DATA]]));
            {
                let _ = g.finish(&[x, result], &[]);
            }
        }),
        "result",
        &["result 1", "f32[2,3]", "dimension `1` of size 3", "`data`"],
    );
    // One axis of one device splits nothing, and none of no elements is too few.
    let g = Graph::new("equal");
    let x = g.sharded_parameter("x", rows(0), split());
    let y = g.sharded_parameter("y", rows(3), over(&[&[ONE], &[]]));
    // Within a program XLA fills up what does not divide.
    let within = y.with_sharding_constraint(split()) + 1.0;
    g.finish(
        &[x.with_sharding_constraint(split()), within],
        &[(0, 0), (1, 1)],
    )
    .unwrap();
}

#[test]
fn donations_have_the_sharding_of_what_they_take_over() {
    let whole = || over(&[&[], &[]]);
    let cases: [(Sharding, Sharding, [&str; 2]); 4] = [
        (
            over(&[&[DATA], &[]]),
            whole(),
            [
                "split over mesh axis `data` in the input",
                "whole in the result",
            ],
        ),
        (
            whole(),
            over(&[&[DATA], &[]]),
            [
                "whole in the input",
                "split over mesh axis `data` in the result",
            ],
        ),
        (
            over(&[&[DATA, MODEL], &[]]),
            over(&[&[MODEL, DATA], &[]]),
            [
                "`data` and `model` in the input",
                "`model` and `data` in the result",
            ],
        ),
        (
            over(&[&[DATA], &[MODEL]]),
            over(&[&[DATA], &[]]),
            ["dimension 1", "whole in the result"],
        ),
    ];
    for (from, to, parts) in cases {
        let g = Graph::new("donation");
        let x = g.sharded_parameter("state", Shape::new(DType::F32, [8, 8]), from);
        let result = x.with_sharding_constraint(to);
        let error = g.finish(&[result], &[(0, 0)]).unwrap_err();
        assert_eq!(error.location.line(), line!() - 1);
        says(
            &error,
            "donation",
            &["result 0", "input 0 `state`", "f32[8,8]"],
        );
        says(&error, "donation", &parts);
    }
    // A result that says nothing is whole; so is a parameter that does not.
    let split = |g: &Graph| {
        let x = g.sharded_parameter("x", Shape::new(DType::F32, [8, 8]), over(&[&[DATA], &[]]));
        g.finish(&[x], &[(0, 0)]).map(|_| ())
    };
    says(
        &split(&Graph::new("silent")).unwrap_err(),
        "donation",
        &["`x`", "dimension 0"],
    );
    let g = Graph::new("whole");
    let x = g.parameter("x", Shape::new(DType::F32, [8, 8]));
    g.finish(
        &[x.with_sharding_constraint(over(&[&[ONE], &[]]))],
        &[(0, 0)],
    )
    .unwrap();
    // Another element type or shape is told with the parameter's name.
    let g = Graph::new("type");
    let x = g.parameter("x", Shape::new(DType::F32, [8]));
    let error = g.finish(&[x.convert(DType::Bf16)], &[(0, 0)]).unwrap_err();
    says(&error, "donation", &["bf16[8]", "input 0 `x`, f32[8]"]);
}

#[test]
fn a_program_has_one_mesh() {
    let other = Arc::new(Mesh::new([(DATA, 4)]).unwrap());
    let other = || Sharding::new(&other, &[&[DATA], &[]]).unwrap();
    let shape = Shape::new(DType::F32, [8, 8]);
    let meshes = ["data 4", "data 2 x model 4 x one 1"];
    says(
        &mistake(|g, _| {
            g.sharded_parameter("a", shape.clone(), over(&[&[], &[]]));
            {
                let _ = g.sharded_parameter("b", shape.clone(), other());
            }
        }),
        "parameter",
        &[&meshes[..], &["`b`"]].concat(),
    );
    says(
        &mistake(|g, x| {
            g.sharded_parameter("a", shape.clone(), over(&[&[], &[]]));
            {
                let _ = x.with_sharding_constraint(other());
            }
        }),
        "sharding-constraint",
        &meshes,
    );
    let rules: [(AxisName, Vec<AxisName>); 0] = [];
    let rules = LogicalAxisRules::new(Mesh::new([(DATA, 4)]).unwrap(), rules).unwrap();
    says(
        &mistake(|g, _| {
            g.sharded_parameter("a", shape.clone(), over(&[&[], &[]]));
            {
                g.set_logical_axis_rules(rules);
            }
        }),
        "logical_axis_rules",
        &meshes,
    );
    for (axes, part) in [
        (vec![(DATA, 0)], "`data` has 0"),
        (vec![(DATA, 2), (MODEL, -1)], "`model` has -1"),
        (vec![(DATA, 2), (DATA, 2)], "called `data`"),
        (vec![(DATA, i64::MAX), (MODEL, 2)], "too large"),
    ] {
        let error = Mesh::new(axes).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_sharding_may_be_given_by_axis() {
    let mesh = Arc::new(Mesh::new([(DATA, 2), (MODEL, 4)]).unwrap());
    let g = Graph::new("axes");
    let x = g.parameter("x", Shape::new(DType::F32, [8, 4]));
    let both = Sharding::new(&mesh, &[&[DATA, MODEL], &[]]).unwrap();
    assert_eq!((both.shards(0), both.shards(1)), (8, 1));
    let y = x
        .with_sharding_constraint(both)
        .with_sharding_constraint(Sharding::replicated(&mesh, 2));
    let text = g.finish(&[y], &[]).unwrap().text();
    assert!(text.contains("[{\"data\", \"model\"}, {}]"), "{text}");
    assert!(text.contains("[{}, {}]"), "{text}");
}

#[test]
fn the_shards_of_an_array_cover_it_once_for_each_replica() {
    let mesh = Arc::new(Mesh::new([(DATA, 2), (FSDP, 3), (MODEL, 4)]).unwrap());
    let dims = [12i64, 24];
    let axes: [&[&[AxisName]; 2]; 6] = [
        &[&[], &[]],
        &[&[DATA], &[MODEL]],
        &[&[MODEL], &[DATA, FSDP]],
        &[&[FSDP, MODEL], &[]],
        &[&[MODEL, FSDP], &[DATA]],
        &[&[], &[MODEL, DATA, FSDP]],
    ];
    for axes in axes {
        let sharding = Sharding::new(&mesh, axes).unwrap();
        let copies = mesh.devices() / (sharding.shards(0) * sharding.shards(1));
        let mut held = vec![0; (dims[0] * dims[1]) as usize];
        for position in 0..mesh.devices() {
            let part = sharding.shard_ranges(position, &dims);
            let sizes: Vec<i64> = part.iter().map(|r| r.end - r.start).collect();
            assert_eq!(sizes, sharding.shard_dims(&dims));
            for row in part[0].clone() {
                for column in part[1].clone() {
                    held[(row * dims[1] + column) as usize] += 1;
                }
            }
        }
        assert!(held.iter().all(|&n| n == copies), "{axes:?}: {held:?}");
    }
}

/// Runs a program on the eight devices, of which each has its parts of the inputs; the first
/// device's results.
fn run_split(module: &Module, inputs: &[HostTensor]) -> Vec<HostTensor> {
    let client = support::client();
    let ids: Vec<i64> = (0..8).collect();
    let options = CompileOptions::new().partitions(Partitioner::Shardy, ids);
    let executable = client
        .compile(&Program::hlo(module.to_bytes()), &options)
        .unwrap_or_else(|e| panic!("{e}\n{}", module.text()));
    let arguments = executable.devices().iter().map(|device| {
        let specs = module.parameters().iter().zip(inputs);
        specs
            .map(|(spec, tensor)| {
                let dims = &spec.shape.dims;
                let sharding = spec.sharding.as_ref();
                let part = sharding.map(|s| s.shard_ranges(device.id().into(), dims));
                let part = part.map_or(tensor.clone(), |part| tensor.part(&part).unwrap());
                Argument::Donate(client.upload(&part, device).unwrap())
            })
            .collect()
    });
    let outputs = executable.execute(arguments.collect()).unwrap();
    outputs[0].iter().map(|b| b.to_host().unwrap()).collect()
}

#[test]
fn a_constraint_that_does_not_divide_changes_no_result() {
    let mesh = Arc::new(Mesh::new([(DATA, 2), (MODEL, 4)]).unwrap());
    let program = |split: bool| {
        let g = Graph::new("indivisible");
        let x = g.parameter("x", Shape::new(DType::F32, [5, 3]));
        let at =
            |t, dims: &[&[AxisName]]| place(t, split.then(|| Sharding::new(&mesh, dims).unwrap()));
        let y = at(x.sin(), &[&[DATA], &[MODEL]]);
        let z = g.einsum("ab,cb->ac", y, at(x.exp(), &[&[MODEL], &[]]));
        let sums = at(z, &[&[DATA], &[]]).sum(&[0]);
        let dx = g.gradients((sums * sums).sum_all(), &[x])[0];
        g.finish(&[sums, y.max(&[0]), dx], &[]).unwrap()
    };
    let values: Vec<f32> = (0..15).map(|i| (i as f32 * 0.7).sin()).collect();
    let x = [HostTensor::new::<f32>([5, 3], &values)];
    let expected = support::compile(&program(false)).run(&x);
    let found = run_split(&program(true), &x);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.dims, expected.dims);
        let (found, expected) = (
            found.to_vec::<f32>().unwrap(),
            expected.to_vec::<f32>().unwrap(),
        );
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-4, "{found:?} should be {expected:?}");
        }
    }
}

fn place<'g>(t: Tensor<'g>, sharding: Option<Sharding>) -> Tensor<'g> {
    match sharding {
        Some(sharding) => t.with_sharding_constraint(sharding),
        None => t,
    }
}

#[test]
fn results_have_the_sharding_of_their_specs_without_rules_too() {
    let mesh = Arc::new(Mesh::new([(DATA, 2), (MODEL, 4)]).unwrap());
    let split = |dims: &[&[AxisName]]| Sharding::new(&mesh, dims).unwrap();
    let g = Graph::new("specs");
    let x = g.sharded_parameter("x", Shape::new(DType::F32, [8, 8]), split(&[&[DATA], &[]]));
    let whole = x.sin();
    let module = g
        .finish(
            &[whole, x.with_sharding_constraint(split(&[&[], &[MODEL]]))],
            &[],
        )
        .unwrap();
    let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let results = run_split(&module, &[HostTensor::new::<f32>([8, 8], &values)]);
    for (result, spec) in results.iter().zip(module.results()) {
        let sharding = spec.sharding.as_ref().unwrap();
        assert_eq!(result.dims, sharding.shard_dims(&spec.shape.dims));
    }
    assert_eq!(
        (&results[0].dims[..], &results[1].dims[..]),
        (&[8, 8][..], &[8, 2][..])
    );
}

const ROWS: AxisName = AxisName::new("rows");
const COLUMNS: AxisName = AxisName::new("columns");

/// Rows over `data`, columns over `model`, on 2 by 4 devices.
fn rows_and_columns(form: ShardingForm) -> LogicalAxisRules {
    let mesh = Mesh::new([(DATA, 2), (MODEL, 4)]).unwrap();
    let rules = [(ROWS, vec![DATA]), (COLUMNS, vec![MODEL])];
    LogicalAxisRules::new(mesh, rules).unwrap().with_form(form)
}

/// Of x `[rows, columns]`: twice x, and the sum of each device's shard.
fn doubled_and_summed<'g>(g: &'g Graph, x: Tensor<'g>) -> Vec<Tensor<'g>> {
    let both = vec![Some(ROWS), Some(COLUMNS)];
    let inputs = [(x, both.clone())];
    g.shard_map("shards", &inputs, &[both.clone(), both], |x| {
        vec![x[0] * 2.0, x[0].sum_all().reshape(&[1, 1])]
    })
}

#[test]
fn a_shard_map_computes_with_each_devices_shards() {
    let g = Graph::new("shard_map");
    g.set_logical_axis_rules(rows_and_columns(ShardingForm::Shardy));
    let shape = Shape::new(DType::F32, [4, 8]);
    let x = g.parameter_with_logical_axes("x", shape, &[ROWS, COLUMNS]);
    let outputs = doubled_and_summed(&g, x);
    assert_eq!(outputs[1].dims(), [2, 4]);
    assert_eq!((g.shards(ROWS), g.shards(COLUMNS)), (2, 4));
    let module = g.finish(&outputs, &[]).unwrap();
    let values: Vec<f32> = (0..32).map(|i| i as f32).collect();
    let found = run_split(&module, &[HostTensor::new::<f32>([4, 8], &values)]);
    let doubled: Vec<f32> = values.iter().map(|v| 2.0 * v).collect();
    assert_eq!(found[0].to_vec::<f32>().unwrap(), doubled);
    let sum = |row: usize, column: usize| -> f32 {
        let at = |r: usize, c: usize| values[(2 * row + r) * 8 + 2 * column + c];
        at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)
    };
    let sums: Vec<f32> = (0..8).map(|i| sum(i / 4, i % 4)).collect();
    assert_eq!(found[1].to_vec::<f32>().unwrap(), sums);
    // Without rules the one shard is the whole.
    let g = Graph::new("whole");
    let x = g.parameter("x", Shape::new(DType::F32, [4, 8]));
    assert_eq!(doubled_and_summed(&g, x)[1].dims(), [1, 1]);
    assert_eq!(g.shards(ROWS), 1);
    g.finish(&[x], &[]).unwrap();
}

#[test]
fn a_shard_map_that_cannot_be_is_refused() {
    let refused = |form: ShardingForm, build: for<'g> fn(&'g Graph, Tensor<'g>)| -> String {
        let g = Graph::new("shard_map");
        g.set_logical_axis_rules(rows_and_columns(form));
        let x = g.parameter("x", Shape::new(DType::F32, [3, 8]));
        build(&g, x);
        let error = g.error().expect("a mistake");
        assert_eq!(error.operation, "shard_map", "{error}");
        error.problem
    };
    let shardy = ShardingForm::Shardy;
    let problem = refused(shardy, |g, x| {
        doubled_and_summed(g, x);
    });
    assert!(problem.contains("`rows` of size 3"), "{problem}");
    let problem = refused(shardy, |g, x| {
        g.shard_map("shards", &[(x, vec![None])], &[], |_| vec![]);
    });
    assert!(problem.contains("1 axes for f32[3,8]"), "{problem}");
    let problem = refused(shardy, |g, x| {
        let outside = x * 2.0;
        let axes = vec![None, Some(COLUMNS)];
        g.shard_map("shards", &[(x, axes.clone())], &[axes], |_| vec![outside]);
    });
    assert!(problem.contains("a tensor from outside"), "{problem}");
    let problem = refused(shardy, |g, x| {
        let axes = vec![None, Some(COLUMNS)];
        g.shard_map("shards", &[(x, axes.clone())], &[axes.clone(), axes], |x| {
            x.to_vec()
        });
    });
    assert!(problem.contains("1 results, and axes for 2"), "{problem}");
    let problem = refused(shardy, |g, _| {
        g.shard_map("shards", &[], &[vec![]], |_| vec![]);
    });
    assert!(problem.contains("nothing to split"), "{problem}");
    let problem = refused(ShardingForm::Gspmd, |g, x| {
        let axes = vec![None, Some(COLUMNS)];
        g.shard_map("shards", &[(x, axes.clone())], &[axes], |x| x.to_vec());
    });
    assert!(problem.contains("Shardy"), "{problem}");
}
