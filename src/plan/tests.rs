//! Modules in small, to be counted by hand.

use ankh_hlo::{DType, Mesh};
use ankh_proto::xla::hlo_instruction_proto::ReplicaGroupList;
use ankh_proto::xla::mesh_proto::MeshAxis;
use ankh_proto::xla::{
    AxisRefProto, FrontendAttributes, HloComputationProto, HloInstructionProto, HloModuleProto,
    IotaReplicaGroupListProto, LiteralProto, MeshAxesReplicaGroupListProto, MeshProto, OpMetadata,
    PrimitiveType, ReplicaGroup, ShapeProto, SourceTarget,
};

use super::*;
use crate::config::{Config, Remat, resolve};
use crate::mesh::slice::Generation;
use crate::programs::{BatchShape, Programs};

fn shape(element_type: PrimitiveType, dims: &[i64]) -> ShapeProto {
    ShapeProto {
        element_type: element_type.into(),
        dimensions: dims.to_vec(),
        ..Default::default()
    }
}

fn instruction(id: i64, opcode: &str, dims: &[i64], operands: &[i64]) -> HloInstructionProto {
    HloInstructionProto {
        id,
        opcode: opcode.into(),
        shape: Some(shape(PrimitiveType::F32, dims)),
        operand_ids: operands.to_vec(),
        ..Default::default()
    }
}

/// An instruction whose compiler expects it to take `cycles`, built in `scope`.
fn timed(id: i64, scope: &str, cycles: u64) -> HloInstructionProto {
    HloInstructionProto {
        backend_config: format!(r#"{{"window_config":{{"estimated_cycles":"{cycles}"}}}}"#)
            .into_bytes(),
        metadata: Some(OpMetadata {
            op_name: scope.into(),
            ..Default::default()
        }),
        ..instruction(id, "fusion", &[1], &[])
    }
}

fn calling(mut i: HloInstructionProto, computations: &[i64]) -> HloInstructionProto {
    i.called_computation_ids = computations.to_vec();
    i
}

fn bound(id: i64, value: i32) -> HloInstructionProto {
    HloInstructionProto {
        shape: Some(shape(PrimitiveType::S32, &[])),
        literal: Some(LiteralProto {
            s32s: vec![value],
            ..Default::default()
        }),
        ..instruction(id, "constant", &[], &[])
    }
}

/// The computations, numbered from 1; the last one is the entry.
fn module(computations: Vec<Vec<HloInstructionProto>>) -> HloModuleProto {
    HloModuleProto {
        entry_computation_id: computations.len() as i64,
        computations: (1..)
            .zip(computations)
            .map(|(id, instructions)| HloComputationProto {
                id,
                instructions,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

/// On a v4, without kernels.
fn profile(module: &HloModuleProto) -> Option<Profile> {
    Profile::of(module, &Schedules::new(), Generation::V4.chip())
}

#[test]
fn loops_count_as_often_as_they_run() {
    let profile = profile(&module(vec![
        // 1, 2: the inner loop; 3: a fusion that the outer loop's condition is made of; 4, 5: the
        // outer loop.
        vec![timed(1, "encoder/layer/mlp/dot", 10)],
        vec![bound(2, 3)],
        vec![bound(3, 5)],
        vec![
            calling(instruction(4, "while", &[1], &[]), &[1, 2]),
            timed(5, "gradient/encoder/layer/mlp/dot", 7),
            timed(6, "recompute/encoder/layer/mlp/dot", 1),
        ],
        vec![calling(instruction(7, "fusion", &[1], &[]), &[3])],
        vec![
            calling(instruction(8, "while", &[1], &[]), &[4, 5]),
            timed(9, "optimizer/reduce", 100),
            timed(10, "reduce", 1),
        ],
    ]))
    .unwrap();
    assert_eq!(profile.cycles, 5 * (3 * 10 + 7 + 1) + 100 + 1);
    let mlp = &profile.scopes[0];
    assert_eq!(mlp.name, "encoder/mlp");
    assert_eq!((mlp.forward, mlp.recompute, mlp.gradient), (150, 5, 35));
    let names: Vec<&str> = profile.scopes.iter().map(|p| &*p.name).collect();
    assert_eq!(names, ["encoder/mlp", "optimizer", "other"]);
}

#[test]
fn what_a_fusion_is_made_of_takes_no_time_of_its_own() {
    let inner = vec![timed(1, "decoder/dot", 10)];
    let entry = vec![calling(timed(2, "decoder/dot", 12), &[1])];
    assert_eq!(profile(&module(vec![inner, entry])).unwrap().cycles, 12);
}

#[test]
fn a_compiler_without_estimates_gives_no_profile() {
    assert_eq!(
        profile(&module(vec![vec![instruction(1, "add", &[1], &[])]])),
        None
    );
}

fn mesh() -> Mesh {
    crate::programs::sharding::mesh(MeshShape {
        data: 2,
        fsdp: 2,
        model: 4,
    })
}

/// What one exchange of a float32 array of 60 elements comes to.
fn one(opcode: &str, edit: impl FnOnce(&mut HloInstructionProto)) -> Collective {
    let mut exchange = instruction(2, opcode, &[1], &[1]);
    edit(&mut exchange);
    let entry = vec![instruction(1, "parameter", &[60], &[]), exchange];
    let found = collectives(&module(vec![entry]), &mesh());
    assert_eq!(found.len(), 1);
    found[0].clone()
}

fn listed(groups: &[&[i64]]) -> Vec<ReplicaGroup> {
    groups
        .iter()
        .map(|ids| ReplicaGroup {
            replica_ids: ids.to_vec(),
        })
        .collect()
}

#[test]
fn an_exchange_is_along_the_axes_in_which_its_devices_differ() {
    let model = one("all-reduce", |i| {
        i.replica_groups = listed(&[
            &[0, 1, 2, 3],
            &[4, 5, 6, 7],
            &[8, 9, 10, 11],
            &[12, 13, 14, 15],
        ]);
    });
    assert_eq!(model.axes, ["model"]);
    let everyone = one("all-reduce", |_| {});
    assert_eq!(everyone.axes, ["data", "fsdp", "model"]);
    let pair = one("collective-permute", |i| {
        let pair = |source, target| SourceTarget { source, target };
        i.source_target_pairs = vec![pair(0, 4), pair(4, 0)];
    });
    assert_eq!(pair.axes, ["fsdp"]);
}

#[test]
fn groups_in_short_are_those_in_full() {
    // Every fourth device: along data and fsdp.
    let full: Vec<Vec<i64>> = (0..4)
        .map(|m| (0..4).map(|d| 4 * d + m).collect())
        .collect();
    let full: Vec<&[i64]> = full.iter().map(Vec::as_slice).collect();
    let in_full = one("all-gather", |i| i.replica_groups = listed(&full));
    let iota = one("all-gather", |i| {
        i.replica_group_list = Some(ReplicaGroupList::IotaCollectiveDeviceList(
            IotaReplicaGroupListProto {
                num_replica_groups: 4,
                num_devices_per_group: 4,
                iota_reshape_dims: vec![4, 4],
                iota_transpose_perm: vec![1, 0],
            },
        ));
    });
    let along_axes = one("all-gather", |i| {
        let axis = |name: &str, size| MeshAxis {
            name: name.into(),
            size,
        };
        i.replica_group_list = Some(ReplicaGroupList::MeshAxesReplicaGroupList(
            MeshAxesReplicaGroupListProto {
                mesh: Some(MeshProto {
                    axes: vec![axis("x", 4), axis("y", 4)],
                    ..Default::default()
                }),
                axes: vec![AxisRefProto {
                    mesh_axis_index: 0,
                    sub_axis_info: None,
                }],
            },
        ));
    });
    assert_eq!(in_full.axes, ["data", "fsdp"]);
    assert_eq!(iota, in_full);
    assert_eq!(along_axes, in_full);
}

#[test]
fn what_is_sent_follows_from_the_kind() {
    let fours = listed(&[&[0, 1, 2, 3]]);
    for (opcode, sent) in [
        ("all-reduce", 2 * 240 * 3 / 4),
        ("all-reduce-start", 2 * 240 * 3 / 4),
        ("all-gather-start", 240 * 3),
        ("reduce-scatter", 240 * 3 / 4),
        ("all-to-all", 240 * 3 / 4),
    ] {
        let found = one(opcode, |i| i.replica_groups = fours.clone());
        assert_eq!(
            (found.count, found.bytes, found.sent),
            (1, 240, sent),
            "{opcode}"
        );
    }
}

#[test]
fn exchanges_inside_loops_and_asynchronous_operations_are_found() {
    let exchange = |id: i64| {
        vec![
            instruction(id, "parameter", &[60], &[]),
            instruction(id + 1, "reduce-scatter", &[30], &[id]),
        ]
    };
    let found = collectives(
        &module(vec![
            exchange(1),
            vec![calling(instruction(3, "async-start", &[1], &[]), &[1])],
            vec![bound(4, 6)],
            vec![calling(instruction(5, "while", &[1], &[]), &[2, 3])],
        ]),
        &mesh(),
    );
    assert_eq!((found[0].count, found[0].bytes), (6, 6 * 240));
}

#[test]
fn what_loops_write_for_each_layer_is_told_from_what_they_read() {
    let layers = |first: i64, scope: &str| {
        let metadata = OpMetadata {
            op_name: scope.into(),
            ..Default::default()
        };
        let [zero, written, read, state, scan] = [0, 1, 2, 3, 4].map(|i| first + i);
        vec![
            instruction(zero, "constant", &[], &[]),
            instruction(written, "broadcast", &[3, 5], &[zero]),
            instruction(read, "parameter", &[3, 7], &[]),
            instruction(state, "tuple", &[], &[written, read, zero]),
            HloInstructionProto {
                metadata: Some(metadata),
                ..calling(instruction(scan, "while", &[], &[state]), &[1, 2])
            },
        ]
    };
    let forward = layers(10, "encoder/layer/scan");
    let gradient = layers(20, "gradient/encoder/layer/scan");
    let module = module(vec![
        vec![],
        vec![bound(1, 3)],
        [forward, gradient].concat(),
    ]);
    let stacks = memory::Stacks::of(&module);
    for shapes in [&stacks.activations, &stacks.gradients] {
        let dims: Vec<&[i64]> = shapes.iter().map(|shape| &*shape.dimensions).collect();
        assert_eq!(dims, [[3, 5]]);
    }
}

fn step_flops(config: &Config, compute: DType) -> Flops {
    let programs = Programs::new(config, BatchShape::of(config), compute);
    Flops::of(programs.step().unwrap().proto(), 1)
}

#[test]
fn products_counted_in_the_graph_are_those_of_the_formula() {
    for preset in ["ankh-base", "ankh-large", "ankh3-large"] {
        let config = resolve(Some(preset), &[]).unwrap();
        // In float32 nothing is computed twice on the way.
        let programs = Programs::new(&config, BatchShape::of(&config), DType::F32);
        let counted = 3.0 * Flops::of(programs.evaluation().unwrap().proto(), 1).total();
        let ratio = counted / config.step_flops();
        assert!((0.999..1.005).contains(&ratio), "{preset}: {ratio}");
    }
}

#[test]
fn keeping_everything_leaves_only_the_attention_scores_to_compute_again() {
    let mut config = resolve(Some("ankh-base"), &[]).unwrap();
    config.train.remat = Remat::None;
    let flops = step_flops(&config, DType::F32);
    assert_eq!(flops.recompute, 0.0);
    let ratio = flops.total() / config.step_flops();
    assert!((1.0..1.02).contains(&ratio), "{ratio}");
}

#[test]
fn recomputation_adds_at_most_a_forward_pass() {
    let mut config = resolve(Some("ankh-base"), &[]).unwrap();
    let mut totals = Remat::ALL.map(|remat| {
        config.train.remat = remat;
        let flops = step_flops(&config, DType::F32);
        assert!(flops.recompute <= flops.forward, "{remat:?}");
        flops.total()
    });
    // From least memory to most is from most work to least.
    assert!(totals.is_sorted_by(|a, b| a >= b), "{totals:?}");
    totals.reverse();
    let ratio = totals[4] / totals[0];
    assert!((1.2..1.34).contains(&ratio), "{ratio}");
}

#[test]
fn a_batch_in_parts_costs_the_same() {
    let mut config = resolve(Some("ankh-base"), &[]).unwrap();
    let whole = step_flops(&config, DType::Bf16).total();
    config.train.gradient_accumulation = 4;
    // Only the relative positions, which all examples share, are looked up once for each part.
    let ratio = step_flops(&config, DType::Bf16).total() / whole;
    assert!((1.0..1.002).contains(&ratio), "{ratio}");
}

/// A call of a kernel with a grid of 6 by 5 places, of which the first axis is shared out.
fn kernel(id: i64, scope: &str) -> HloInstructionProto {
    let known = r#"{"name":"attention","grid":[6,5],"parallel":[true,false],
        "cost":{"flops":600,"transcendentals":0,"bytes":300000}}"#;
    let operand = shape(PrimitiveType::F32, &[3]);
    HloInstructionProto {
        name: format!("custom-call.{id}"),
        custom_call_target: ankh_mosaic::TARGET.into(),
        frontend_attributes: Some(FrontendAttributes {
            map: [("ankh.kernel".to_string(), known.to_string())].into(),
        }),
        operand_shapes_with_layout: vec![operand.clone(), operand.clone()],
        shape: Some(ShapeProto {
            element_type: PrimitiveType::Tuple.into(),
            tuple_shapes: vec![operand],
            ..Default::default()
        }),
        metadata: Some(OpMetadata {
            op_name: scope.into(),
            ..Default::default()
        }),
        ..instruction(id, "custom-call", &[3], &[])
    }
}

#[test]
fn kernels_count_by_their_schedules_and_none_is_free() {
    // Twice in a loop of three, once inside a fusion.
    let called = kernel(1, "gradient/encoder/layer/attention/shard_map/custom-call");
    let inside = kernel(2, "encoder/layer/attention/shard_map/custom-call");
    let fusion = HloInstructionProto {
        name: "fusion.3".into(),
        metadata: inside.metadata.clone(),
        ..calling(instruction(3, "fusion", &[3], &[]), &[1])
    };
    let step = module(vec![
        vec![inside],
        vec![called, fusion, timed(4, "encoder/layer/mlp/dot", 7)],
        vec![bound(5, 3)],
        vec![calling(instruction(6, "while", &[1], &[]), &[2, 3])],
    ]);
    let schedule = Schedule {
        bundles: 100,
        body: 90,
    };
    let both = |schedule| {
        let named = ["custom-call.1", "fusion.3"].map(|name| (name.to_string(), schedule));
        Schedules::from(named)
    };
    let schedules = both(schedule);
    // Two cores share the six places of the first axis; two more rounds skip the body.
    let call = 3 * 5 * 100 + 2 * 10;
    let profile = Profile::of(&step, &schedules, Generation::V4.chip()).unwrap();
    assert_eq!(profile.cycles, 3 * (2 * call + 7));
    let attention = &profile.scopes[0];
    assert_eq!(attention.name, "encoder/attention");
    assert_eq!(
        (attention.forward, attention.gradient),
        (3 * call, 3 * call)
    );
    assert_eq!(profile.kernels.len(), 2);
    assert_eq!(profile.kernels[0].bytes, 10_000);
    // One core has them all.
    let profile = Profile::of(&step, &schedules, Generation::V5e.chip()).unwrap();
    assert_eq!(profile.kernels[0].cycles, 3 * (6 * 5 * 100 + 2 * 10));
    // Where memory is slower, it counts.
    let quick = Schedule {
        bundles: 1,
        body: 0,
    };
    let quick = both(quick);
    let profile = Profile::of(&step, &quick, Generation::V5e.chip()).unwrap();
    let kernel = &profile.kernels[0];
    assert!(kernel.memory_cycles > 1);
    assert_eq!(kernel.cycles, 3 * 30 * kernel.memory_cycles);

    let mut written = schedules.clone();
    written.insert("fusion.9".into(), schedule);
    assert_eq!(kernels::schedules(&step, &written), Ok(schedules));
    written.remove("fusion.3");
    let missing = kernels::schedules(&step, &written);
    assert_eq!(missing, Err("fusion.3".into()));
}

#[test]
fn of_kernels_with_the_same_code_one_has_a_schedule() {
    let [one, same, other] = [1, 2, 3].map(|id| kernel(id, "encoder/layer/attention"));
    let other = HloInstructionProto {
        backend_config: b"another body".into(),
        ..other
    };
    let schedule = Schedule {
        bundles: 100,
        body: 90,
    };
    let written = Schedules::from([("custom-call.1".to_string(), schedule)]);
    let twins = module(vec![vec![one.clone(), same.clone()]]);
    let both = ["custom-call.1", "custom-call.2"].map(|name| (name.to_string(), schedule));
    assert_eq!(kernels::schedules(&twins, &written), Ok(both.into()));
    let three = module(vec![vec![one, same, other]]);
    let missing = kernels::schedules(&three, &written);
    assert_eq!(missing, Err("custom-call.3".into()));
}

#[test]
fn a_kernels_products_count_on_every_device() {
    let settings = |way: &str| {
        [
            format!("train.attention={way}"),
            "train.batch_size=8".into(),
        ]
    };
    let config = resolve(Some("tiny"), &settings("kernel")).unwrap();
    let formula = resolve(Some("tiny"), &settings("formula")).unwrap();
    let whole = step_flops(&formula, DType::F32).total();
    // Each of eight devices has an eighth of the batch. A kernel is written for one device.
    let mesh = MeshShape {
        data: 8,
        fsdp: 1,
        model: 1,
    };
    let rules = sharding::logical_axis_rules(&config, mesh).unwrap();
    for platform in ["cpu", "tpu"] {
        let programs = Programs::of(&config, platform, rules.as_ref());
        let step = programs.step().unwrap();
        let kernels = Flops::of(step.proto(), 8).total() / whole;
        assert!((1.0..1.1).contains(&kernels), "{platform}: {kernels}");
    }
}
