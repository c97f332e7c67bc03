//! Programs compile, run, survive serialization and tell about themselves.

mod common;

use ankh_pjrt::{
    Argument, Buffer, Client, Code, CompileOptions, ElementType, Error, Executable, HostTensor,
    Program, SharedTensor,
};
use ankh_proto::xla::Kind;
use common::{add_all, aliasing_first, binary, client, compile, identity};

fn upload(client: &Client, values: &[f32]) -> Buffer {
    let device = &client.addressable_devices().unwrap()[0];
    let tensor = HostTensor::new::<f32>([values.len() as i64], values);
    client.upload(&tensor, device).unwrap()
}

fn run(executable: &Executable, arguments: Vec<Argument<'_>>) -> Vec<f32> {
    let outputs = executable.execute(vec![arguments]).unwrap();
    outputs[0][0].to_host().unwrap().to_vec::<f32>().unwrap()
}

#[test]
fn a_program_computes() {
    let client = client(1);
    let add = compile(&client, &binary("add", ElementType::F32, &[3]));
    let x = upload(&client, &[1.0, 2.0, 3.0]);
    let y = upload(&client, &[10.0, 20.0, 30.0]);
    assert_eq!(
        run(&add, vec![(&x).into(), (&y).into()]),
        [11.0, 22.0, 33.0]
    );
    // Kept arguments stay usable, one may even be given twice.
    assert_eq!(run(&add, vec![(&x).into(), (&x).into()]), [2.0, 4.0, 6.0]);
}

#[test]
fn a_matrix_product_is_row_major() {
    let client = client(1);
    let device = &client.addressable_devices().unwrap()[0];
    let mut dot = binary("dot", ElementType::F32, &[2, 2]);
    let root = dot.computations[0].instructions.last_mut().unwrap();
    root.dot_dimension_numbers = Some(ankh_proto::xla::DotDimensionNumbers {
        lhs_contracting_dimensions: vec![1],
        rhs_contracting_dimensions: vec![0],
        ..Default::default()
    });
    let dot = compile(&client, &dot);
    let upload = |values: &[f32]| {
        client
            .upload(&HostTensor::new::<f32>([2, 2], values), device)
            .unwrap()
    };
    let product = run(
        &dot,
        vec![
            upload(&[1.0, 2.0, 3.0, 4.0]).into(),
            upload(&[5.0, 6.0, 7.0, 8.0]).into(),
        ],
    );
    assert_eq!(product, [19.0, 22.0, 43.0, 50.0]);
}

#[test]
fn every_element_type_passes_through_a_program() {
    let client = client(1);
    let device = &client.addressable_devices().unwrap()[0];
    for &element_type in ElementType::ALL {
        let bytes = match element_type {
            ElementType::Pred => vec![0, 1, 1, 0],
            _ => (1..=4 * element_type.byte_width() as u8).collect(),
        };
        let tensor = HostTensor {
            element_type,
            dims: vec![2, 2],
            bytes,
        };
        let x = client.upload(&tensor, device).unwrap();
        let outputs = compile(&client, &identity(element_type, &[2, 2]))
            .execute(vec![vec![x.into()]])
            .unwrap();
        assert_eq!(outputs[0][0].to_host().unwrap(), tensor);
    }
}

#[tokio::test]
async fn an_execution_can_be_awaited() {
    let client = client(1);
    let add = compile(&client, &binary("add", ElementType::F32, &[2]));
    let x = upload(&client, &[1.0, 2.0]);
    let outputs = add.execute(vec![vec![(&x).into(), (&x).into()]]).unwrap();
    outputs[0][0].ready().unwrap().await.unwrap();
    let sum = outputs[0][0].to_host_async().unwrap().await.unwrap();
    assert_eq!(sum.to_vec::<f32>().unwrap(), [2.0, 4.0]);
}

#[test]
fn a_chain_of_donations_computes() {
    let client = client(1);
    let module = aliasing_first(binary("add", ElementType::F32, &[2]), Kind::MayAlias);
    let add = compile(&client, &module);
    assert_eq!(add.program().memory_stats().unwrap().aliased, 8);
    let one = upload(&client, &[1.0, 2.0]);
    let mut state = upload(&client, &[0.0, 0.0]);
    for _ in 0..100 {
        let outputs = add
            .execute(vec![vec![state.into(), (&one).into()]])
            .unwrap();
        state = outputs.into_iter().flatten().next().unwrap();
    }
    assert_eq!(
        state.to_host().unwrap().to_vec::<f32>().unwrap(),
        [100.0, 200.0]
    );
    assert_eq!(one.to_host().unwrap().to_vec::<f32>().unwrap(), [1.0, 2.0]);
}

/// The memory of a shared tensor is the host's: who gives its buffer away gives a copy.
#[test]
fn a_shared_tensor_stays_as_it_is_where_its_buffer_is_donated() {
    let client = client(1);
    let device = &client.addressable_devices().unwrap()[0];
    let module = aliasing_first(binary("add", ElementType::F32, &[1024]), Kind::MayAlias);
    let add = compile(&client, &module);
    let tensor = HostTensor::new::<f32>([1024], &[1.5; 1024]);
    let shared = SharedTensor::new(&tensor).unwrap();
    let [given, kept] = [0, 1].map(|_| client.share(&shared, device).unwrap());
    let sums = run(&add, vec![Argument::Donate(given), (&kept).into()]);
    assert_eq!(sums, [3.0; 1024]);
    assert_eq!(kept.to_host().unwrap(), tensor);
}

#[test]
fn a_donated_state_of_many_arrays_is_replaced_by_the_outputs() {
    const ARRAYS: i64 = 40;
    let client = client(1);
    let step = compile(&client, &add_all(ARRAYS, &[2]));
    assert_eq!(step.program().output_count().unwrap(), ARRAYS as usize);
    assert_eq!(step.program().memory_stats().unwrap().aliased, ARRAYS * 8);
    let updates: Vec<Buffer> = (0..ARRAYS)
        .map(|i| upload(&client, &[i as f32, 1.0]))
        .collect();
    let mut state: Vec<Buffer> = (0..ARRAYS).map(|_| upload(&client, &[0.0, 0.0])).collect();
    for _ in 0..10 {
        let arguments = state
            .into_iter()
            .map(Argument::Donate)
            .chain(updates.iter().map(Argument::Keep))
            .collect();
        state = step.execute(vec![arguments]).unwrap().remove(0);
    }
    for (i, array) in state.iter().enumerate() {
        assert_eq!(
            array.to_host().unwrap().to_vec::<f32>().unwrap(),
            [10.0 * i as f32, 10.0]
        );
    }
}

#[test]
fn a_kept_argument_survives_a_program_that_would_take_it_over() {
    let client = client(1);
    let module = aliasing_first(binary("add", ElementType::F32, &[2]), Kind::MayAlias);
    let add = compile(&client, &module);
    let x = upload(&client, &[1.0, 2.0]);
    let y = upload(&client, &[3.0, 4.0]);
    for _ in 0..3 {
        assert_eq!(run(&add, vec![(&x).into(), (&y).into()]), [4.0, 6.0]);
    }
    assert_eq!(x.to_host().unwrap().to_vec::<f32>().unwrap(), [1.0, 2.0]);
}

#[test]
fn a_serialized_program_computes_the_same() {
    let client = client(1);
    let add = compile(&client, &binary("add", ElementType::F32, &[2]));
    let bytes = add.program().serialize().unwrap();
    assert!(!bytes.is_empty());
    let loaded = client.load(&bytes).unwrap();
    let x = upload(&client, &[1.0, 2.0]);
    assert_eq!(run(&loaded, vec![(&x).into(), (&x).into()]), [2.0, 4.0]);
}

#[test]
fn a_program_tells_about_itself() {
    let client = client(1);
    let add = compile(&client, &binary("add", ElementType::F32, &[256]));
    assert_eq!(add.program().output_count().unwrap(), 1);
    assert!(
        add.program().name().unwrap().contains("add"),
        "{:?}",
        add.program().name()
    );
    let memory = add.program().memory_stats().unwrap();
    assert_eq!(
        (memory.arguments, memory.outputs, memory.aliased),
        (2048, 1024, 0)
    );
    let optimized = add.program().optimized_program().unwrap().module().unwrap();
    assert!(!optimized.computations.is_empty());
    assert_eq!(optimized.name, "add");
}

#[test]
fn different_programs_have_different_fingerprints() {
    let client = client(1);
    let fingerprint = |module| compile(&client, &module).program().fingerprint().unwrap();
    let [a, b] =
        ["add", "multiply"].map(|opcode| fingerprint(binary(opcode, ElementType::F32, &[2])));
    assert_ne!(a, b);
}

#[test]
fn what_the_plugin_lacks_is_a_clean_error() {
    let client = client(1);
    let add = compile(&client, &binary("add", ElementType::F32, &[2]));
    let error = add.program().cost_analysis().unwrap_err();
    assert_eq!(error.code(), Some(Code::Unimplemented), "{error}");
    let error = client.plugin().topology("v4:2x2x1", &[]).unwrap_err();
    assert_eq!(error.code(), Some(Code::Unimplemented), "{error}");
}

#[test]
fn garbage_is_no_program() {
    let client = client(1);
    let options = CompileOptions::new();
    let error = client
        .compile(&Program::hlo(vec![0xff; 64]), &options)
        .unwrap_err();
    assert!(matches!(error, Error::Pjrt { .. }), "{error:?}");
    let error = client
        .compile(&Program::hlo_module(&Default::default()), &options)
        .unwrap_err();
    assert!(matches!(error, Error::Pjrt { .. }), "{error:?}");
    let program = Program {
        format: "punched cards".to_owned(),
        code: vec![],
    };
    let error = client.compile(&program, &options).unwrap_err();
    assert!(error.to_string().contains("punched cards"), "{error}");
    assert!(client.load(b"no executable").is_err());
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let client = client(1);
    let add = compile(&client, &binary("add", ElementType::F32, &[2]));
    let x = upload(&client, &[1.0, 2.0]);
    let error = add.execute(vec![]).unwrap_err();
    assert!(
        matches!(
            error,
            Error::ArgumentLists {
                expected: 1,
                found: 0
            }
        ),
        "{error:?}"
    );
    let error = add.execute(vec![vec![(&x).into()]]).unwrap_err();
    assert!(matches!(error, Error::Pjrt { .. }), "{error:?}");
    let short = upload(&client, &[1.0]);
    let outcome = add
        .execute(vec![vec![(&x).into(), (&short).into()]])
        .and_then(|outputs| outputs[0][0].to_host());
    assert!(outcome.is_err());
}

#[test]
fn what_belongs_to_another_client_is_refused() {
    let (here, there) = (client(1), client(1));
    let add = compile(&here, &binary("add", ElementType::F32, &[2]));
    let x = upload(&here, &[1.0, 2.0]);
    let y = upload(&there, &[1.0, 2.0]);
    let error = add
        .execute(vec![vec![(&x).into(), (&y).into()]])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "argument 1 of device 0 belongs to another client"
    );
    let device = &there.addressable_devices().unwrap()[0];
    let error = here
        .upload(&HostTensor::scalar(1.0f32), device)
        .unwrap_err();
    assert_eq!(error.to_string(), "device 0 belongs to another client");
}

#[test]
fn threads_share_a_client() {
    let client = client(1);
    let add = compile(&client, &binary("add", ElementType::F32, &[2]));
    std::thread::scope(|scope| {
        for i in 0..4 {
            let (client, add) = (&client, &add);
            scope.spawn(move || {
                let x = upload(client, &[i as f32, 1.0]);
                for _ in 0..50 {
                    assert_eq!(
                        run(add, vec![(&x).into(), (&x).into()]),
                        [2.0 * i as f32, 2.0]
                    );
                }
            });
        }
    });
}
