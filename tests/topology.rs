//! What [`Slice`] says, compared with what libtpu says. `make test-tpu` runs these; no TPU is
//! needed.

use std::collections::{BTreeMap, BTreeSet};

use ankh::config::resolve;
use ankh::mesh::Host;
use ankh::mesh::slice::Slice;
use ankh::mesh_shape::MeshShape;
use ankh::programs::Programs;
use ankh::programs::sharding::{logical_axis_rules, mesh_shape};
use ankh::train::host_rows;
use ankh_pjrt::{DeviceDescription, Platform, Plugin};

fn libtpu() -> Plugin {
    ankh_pjrt::quiet_logs();
    Plugin::find(Platform::Tpu, None).unwrap()
}

fn devices(plugin: &Plugin, slice: Slice) -> Vec<DeviceDescription> {
    let request = slice.topology().unwrap();
    let topology = plugin.topology(&request.name, &request.options);
    let topology = topology.unwrap_or_else(|error| panic!("{slice}: {error}"));
    topology.devices().unwrap()
}

#[test]
#[ignore = "needs libtpu: make test-tpu"]
fn libtpu_sees_the_devices_hosts_and_torus_that_a_slice_says() {
    let plugin = libtpu();
    for name in [
        "v4-8", "v4-16", "v4-32", "v4-64", "v4-128", "v4-256", "v4-384", "v4-512", "v4-1024",
        "v4-1536", "v4-2048", "v4-4096", "v5p-8", "v5p-64", "v5p-128", "v5p-768", "v5e-1", "v5e-4",
        "v5e-8", "v5e-16", "v5e-32", "v5e-128", "v5e-256", "v6e-1", "v6e-4", "v6e-8", "v6e-16",
        "v6e-64", "v6e-256",
    ] {
        let slice: Slice = name.parse().unwrap();
        let devices = devices(&plugin, slice);
        assert_eq!(devices.len(), slice.devices(), "{slice}: devices");

        let mut hosts: BTreeMap<i32, usize> = BTreeMap::new();
        for device in &devices {
            *hosts.entry(device.process_index).or_default() += 1;
        }
        assert_eq!(hosts.len(), slice.hosts(), "{slice}: hosts");
        assert!(hosts.keys().copied().eq(0..hosts.len() as i32), "{slice}");
        let each = slice.devices_per_host();
        assert!(hosts.values().all(|&count| count == each), "{slice}");

        let torus = slice.torus().unwrap();
        for (axis, &length) in torus.dims().iter().enumerate() {
            let coordinates = devices.iter().map(|device| device.coords().unwrap()[axis]);
            let largest = coordinates.max().unwrap();
            assert_eq!(largest + 1, length as i64, "{slice}: dimension {axis}");
        }
    }
}

#[test]
#[ignore = "needs libtpu: make test-tpu"]
fn neighbors_on_the_model_axis_are_neighbors_on_the_torus() {
    let plugin = libtpu();
    for (name, meshes) in [
        (
            "v4-64",
            vec![
                [32, 1, 1],
                [1, 32, 1],
                [1, 1, 32],
                [8, 1, 4],
                [4, 2, 4],
                [2, 4, 4],
                [16, 1, 2],
                [4, 1, 8],
                [1, 8, 4],
                [2, 1, 16],
            ],
        ),
        ("v4-128", vec![[4, 4, 4], [16, 1, 4], [1, 8, 8]]),
        ("v5e-16", vec![[4, 1, 4], [2, 2, 4]]),
    ] {
        let slice: Slice = name.parse().unwrap();
        let torus = slice.torus().unwrap();
        let devices = devices(&plugin, slice);
        for [data, fsdp, model] in meshes {
            let mesh = MeshShape { data, fsdp, model };
            let order = slice.device_assignment(&devices, mesh).unwrap();
            let mut seen = order.clone();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..devices.len()), "{slice}: {mesh}");
            let position = |&index: &usize| -> [usize; 3] {
                let coords = devices[index].coords().unwrap();
                std::array::from_fn(|axis| usize::try_from(coords[axis]).unwrap())
            };
            for line in order.chunks(model) {
                let line: Vec<_> = line.iter().map(position).collect();
                for (from, to) in line.iter().zip(line.iter().cycle().skip(1)) {
                    // On these meshes the way back is one link too.
                    let hops = usize::from(model > 1);
                    assert_eq!(
                        torus.distance(*from, *to),
                        hops,
                        "{slice}: {mesh}: {line:?}"
                    );
                }
            }
        }
    }
}

/// The hosts of a topology, each with its devices by their place in the mesh.
fn hosts(slice: Slice, devices: &[DeviceDescription], mesh: MeshShape) -> Vec<Host> {
    let mut hosts: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (position, index) in slice
        .device_assignment(devices, mesh)
        .unwrap()
        .into_iter()
        .enumerate()
    {
        let host = devices[index].process_index;
        hosts.entry(host).or_default().push(position);
    }
    let hosts = hosts.into_iter().map(|(index, positions)| Host {
        index: usize::try_from(index).unwrap(),
        positions,
    });
    hosts.collect()
}

#[test]
#[ignore = "needs libtpu: make test-tpu"]
fn each_row_is_fed_once_by_every_host_that_computes_it_and_by_no_other() {
    let slice: Slice = "v4-64".parse().unwrap();
    let devices = devices(&libtpu(), slice);
    for (sizes, hosts_of_a_row) in [
        ([32, 1, 1], 1),
        ([1, 32, 1], 1),
        ([8, 4, 1], 1),
        ([16, 1, 2], 1),
        ([4, 4, 2], 1),
        ([8, 1, 4], 1),
        ([2, 4, 4], 1),
        // Eight chips are two hosts, which both need the rows that they compute together.
        ([4, 1, 8], 2),
        // Two layers of sixteen chips, each with two chips of every host, so that all hosts need
        // all rows.
        ([2, 1, 16], 8),
    ] {
        let [data, fsdp, model] = sizes;
        let settings = [
            format!("sharding.data={data}"),
            format!("sharding.fsdp={fsdp}"),
            format!("sharding.model={model}"),
        ];
        let config = resolve(Some("ankh-large"), &settings).unwrap();
        let mesh = mesh_shape(&config, slice.devices()).unwrap();
        let rules = logical_axis_rules(&config, mesh).unwrap();
        let programs = Programs::of(&config, "tpu", rules.as_ref());
        let spec = &programs.batch_specs()[0];

        let batch = config.batch_rows();
        let hosts = hosts(slice, &devices, mesh);
        let mut fed: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); batch];
        for host in &hosts {
            for row in host_rows(host, spec).into_iter().flatten() {
                assert!(fed[row].insert(host.index), "{mesh}: row {row} comes twice");
            }
        }
        // The batch is split over data and fsdp, and those along model have the same rows.
        let rows = batch / (data * fsdp);
        for (row, fed) in fed.iter().enumerate() {
            let computing = row / rows * model..(row / rows + 1) * model;
            let owners = hosts.iter().filter(|host| {
                let mut positions = host.positions.iter();
                positions.any(|position| computing.contains(position))
            });
            let owners: BTreeSet<usize> = owners.map(|host| host.index).collect();
            assert_eq!(*fed, owners, "{mesh}: row {row}");
            assert_eq!(fed.len(), hosts_of_a_row, "{mesh}: row {row}");
        }
    }
}
