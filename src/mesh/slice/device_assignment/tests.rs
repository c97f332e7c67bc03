use proptest::prelude::*;

use super::*;

/// The hops between neighbors on an axis, at the given stride in the places, with the one that
/// closes the ring.
fn hops(torus: &Torus, places: &[[usize; 3]], length: usize, stride: usize) -> Vec<usize> {
    let lines = (0..places.len()).filter(|i| (i / stride).is_multiple_of(length));
    lines
        .flat_map(|start| (0..length).map(move |i| (start, i)))
        .map(|(start, i)| {
            let at = |i: usize| places[start + (i % length) * stride];
            torus.distance(at(i), at(i + 1))
        })
        .collect()
}

fn worst(torus: &Torus, mesh: MeshShape) -> [usize; 3] {
    let places = place(torus, mesh);
    [
        (mesh.data, mesh.fsdp * mesh.model),
        (mesh.fsdp, mesh.model),
        (mesh.model, 1),
    ]
    .map(|(length, stride)| {
        hops(torus, &places, length, stride)
            .into_iter()
            .max()
            .unwrap()
    })
}

fn mesh(data: usize, fsdp: usize, model: usize) -> MeshShape {
    MeshShape { data, fsdp, model }
}

fn torus(slice: &str) -> Torus {
    slice.parse::<Slice>().unwrap().torus().unwrap()
}

/// A torus, and a mesh of as many devices: each length is split between the axes.
fn torus_and_mesh() -> impl Strategy<Value = (Torus, MeshShape)> {
    let divisor = |n: usize| {
        let divisors: Vec<usize> = (1..=n).filter(|d| n.is_multiple_of(*d)).collect();
        proptest::sample::select(divisors)
    };
    let dimension = (1usize..=8, any::<bool>())
        .prop_flat_map(move |(length, wraps)| (Just((length, wraps)), divisor(length)))
        .prop_flat_map(move |(dimension, model)| {
            (Just(dimension), Just(model), divisor(dimension.0 / model))
        });
    proptest::collection::vec(dimension, 1..=3).prop_map(|dimensions| {
        let lengths: Vec<_> = dimensions.iter().map(|d| d.0).collect();
        let torus = Torus::new(&lengths);
        let model = dimensions.iter().map(|d| d.1).product();
        let fsdp = dimensions.iter().map(|d| d.2).product();
        (torus, mesh(torus.chips() / model / fsdp, fsdp, model))
    })
}

proptest! {
    #[test]
    fn each_chip_has_one_place_and_neighbors_on_model_are_neighbors((torus, mesh) in torus_and_mesh()) {
        let places = place(&torus, mesh);
        let mut sorted = places.clone();
        sorted.sort();
        sorted.dedup();
        prop_assert_eq!(sorted.len(), torus.chips());
        for place in &places {
            for (i, &length) in torus.dims().iter().enumerate() {
                prop_assert!(place[i] < length);
            }
        }
        for line in places.chunks(mesh.model) {
            for pair in line.windows(2) {
                prop_assert_eq!(torus.distance(pair[0], pair[1]), 1, "{:?} in {:?}", pair, places);
            }
        }
    }
}

#[test]
fn model_is_a_ring_wherever_the_torus_has_one() {
    for (slice, models) in [
        ("v4-64", vec![2, 4, 8, 16, 32]),
        ("v4-128", vec![2, 4, 8, 16, 32, 64]),
        ("v6e-16", vec![2, 4, 8, 16]),
    ] {
        let torus = torus(slice);
        for model in models {
            for fsdp in [1, 2, torus.chips() / model] {
                if !(torus.chips() / model).is_multiple_of(fsdp) {
                    continue;
                }
                let mesh = mesh(torus.chips() / model / fsdp, fsdp, model);
                assert_eq!(worst(&torus, mesh)[2], 1, "{slice}: {mesh}");
            }
        }
    }
}

#[test]
fn every_axis_is_a_ring_where_it_can_have_a_dimension_of_its_own() {
    assert_eq!(worst(&torus("v4-128"), mesh(4, 4, 4)), [1, 1, 1]);
    assert_eq!(worst(&torus("v4-1024"), mesh(64, 8, 1)), [1, 1, 0]);
    assert_eq!(worst(&torus("v4-64"), mesh(32, 1, 1)), [1, 0, 0]);
    assert_eq!(worst(&torus("v4-64"), mesh(1, 32, 1)), [0, 1, 0]);
    // A ring of four is a square, whose neighbor to one side is two links away.
    assert_eq!(worst(&torus("v4-64"), mesh(1, 8, 4)), [0, 2, 1]);
    // Without links around it, the line of three does not close.
    let open = Torus::new(&[(3, false), (3, false)]);
    assert_eq!(worst(&open, mesh(3, 1, 3)), [2, 0, 2]);
}

#[test]
fn a_mesh_of_another_size_is_refused() {
    let slice: Slice = "v4-64".parse().unwrap();
    let message = slice.coordinates(mesh(8, 1, 2)).unwrap_err().to_string();
    assert_eq!(
        message,
        "the mesh data 8 x fsdp 1 x model 2 has 16 devices, but v4-64 has 32"
    );
    assert!(slice.coordinates(mesh(0, 1, 32)).is_err());
}

#[test]
fn devices_are_found_by_where_they_sit() {
    let slice: Slice = "v4-8".parse().unwrap();
    let device = |id: i32, coords: [i64; 3]| DeviceDescription {
        id,
        attributes: vec![ankh_pjrt::NamedValue::int_list("coords", coords)],
        ..DeviceDescription::default()
    };
    let devices = [
        device(0, [1, 1, 0]),
        device(1, [0, 0, 0]),
        device(2, [0, 1, 0]),
        device(3, [1, 0, 0]),
    ];
    let mesh = mesh(1, 1, 4);
    let order = slice.device_assignment(&devices, mesh).unwrap();
    let places = order
        .iter()
        .map(|&i| position(devices[i].coords().unwrap()).unwrap());
    assert!(places.eq(slice.coordinates(mesh).unwrap()));

    let other = [device(0, [2, 0, 0])]
        .into_iter()
        .chain(devices[1..].iter().cloned());
    let error = slice
        .device_assignment(&other.collect::<Vec<_>>(), mesh)
        .unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("v4-8") && message.contains("[1, 1, 0]"),
        "{message}"
    );
    let error = slice.device_assignment(&devices[..2], mesh).unwrap_err();
    assert_eq!(
        error.to_string(),
        "v4-8 has 4 devices, but the plugin sees 2"
    );
}

#[test]
fn devices_without_a_torus_stay_in_order() {
    let slice: Slice = "cpu-4".parse().unwrap();
    let device = |id: i32| DeviceDescription {
        id,
        ..DeviceDescription::default()
    };
    let devices = [3, 1, 0, 2].map(device);
    assert_eq!(
        slice.device_assignment(&devices, mesh(2, 1, 2)).unwrap(),
        [2, 1, 3, 0]
    );
}
