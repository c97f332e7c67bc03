//! The device assignment: which chip takes which position of the mesh.
//!
//! A mesh has three axes, `data`, `fsdp` and `model`. A step communicates along `model` in every
//! layer, so neighbors on that axis should be neighbors on the torus; those on `fsdp` should be
//! as close as possible. The idea: cut the torus into equal boxes for `model`, the grid of those
//! boxes into equal boxes for `fsdp`, and leave the rest to `data`. Then walk through each box so
//! that every step goes to a neighbor and, where possible, along a ring. Such a cut always exists,
//! because the prime factors of an axis can be distributed over the lengths of the torus. There are
//! few cuts, so all of them are tried.

use std::collections::HashMap;

use ankh_pjrt::DeviceDescription;

use super::{Slice, Torus};
use crate::mesh_shape::MeshShape;

/// Devices that do not make up the mesh.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceAssignmentError {
    /// The mesh has more or fewer devices than the slice.
    #[error(
        "the mesh {mesh} has {} devices, but {slice} has {}",
        .mesh.devices(),
        .slice.devices()
    )]
    OtherCount { mesh: MeshShape, slice: Slice },
    /// The machine has more or fewer devices than the slice.
    #[error("{slice} has {} devices, but the plugin sees {found}", .slice.devices())]
    OtherDevices { slice: Slice, found: usize },
    /// The slice has a chip where the machine has none.
    #[error(
        "{slice} has a chip at {position:?}, but the plugin sees none there: this is another slice"
    )]
    NoChip { slice: Slice, position: [usize; 3] },
}

impl Slice {
    /// Where on the torus each device of the mesh sits: row by row, with `data` the slowest axis
    /// and `model` the fastest. Coordinates that the torus lacks are 0.
    ///
    /// Neighbors on `model` are neighbors on the torus, for every mesh. Among such placements
    /// this is the one with the shortest round trip along `model` (so it is a ring if there is
    /// one), then along `fsdp`, then along `data`. Devices without a torus stay in their order,
    /// numbered along the first coordinate.
    pub fn coordinates(&self, mesh: MeshShape) -> Result<Vec<[usize; 3]>, DeviceAssignmentError> {
        if mesh.devices() != self.devices() {
            return Err(DeviceAssignmentError::OtherCount { mesh, slice: *self });
        }
        Ok(match self.torus() {
            Some(torus) => place(&torus, mesh),
            None => (0..self.devices()).map(|i| [i, 0, 0]).collect(),
        })
    }

    /// Which of the plugin's devices is which place of the mesh, as an index into `devices`; the
    /// places are in the order of [`Slice::coordinates`].
    pub fn device_assignment(
        &self,
        devices: &[DeviceDescription],
        mesh: MeshShape,
    ) -> Result<Vec<usize>, DeviceAssignmentError> {
        if devices.len() != self.devices() {
            return Err(DeviceAssignmentError::OtherDevices {
                slice: *self,
                found: devices.len(),
            });
        }
        let positions = self.coordinates(mesh)?;
        if self.torus().is_none() {
            let mut order: Vec<usize> = (0..devices.len()).collect();
            order.sort_by_key(|&i| devices[i].id);
            return Ok(order);
        }
        let found: HashMap<[usize; 3], usize> = devices
            .iter()
            .enumerate()
            .filter_map(|(i, device)| Some((position(device.coords()?)?, i)))
            .collect();
        let device = |position| {
            let missing = || DeviceAssignmentError::NoChip {
                slice: *self,
                position,
            };
            found.get(&position).copied().ok_or_else(missing)
        };
        positions.into_iter().map(device).collect()
    }
}

/// A plugin's coordinates as ours.
fn position(coords: &[i64]) -> Option<[usize; 3]> {
    let mut position = [0; 3];
    for (place, &coordinate) in position.iter_mut().zip(coords) {
        *place = usize::try_from(coordinate).ok()?;
    }
    Some(position)
}

/// The best placement of a mesh that has as many devices as the torus has chips.
fn place(torus: &Torus, mesh: MeshShape) -> Vec<[usize; 3]> {
    let mut lengths = [1; 3];
    lengths[..torus.dims().len()].copy_from_slice(torus.dims());
    let mut best: Option<[Walk; 3]> = None;
    for model in boxes(lengths, mesh.model) {
        let tiles = divide(lengths, model);
        for fsdp in boxes(tiles, mesh.fsdp) {
            let data = divide(tiles, fsdp);
            let walks = [
                Walk::best(torus, model, [1; 3]),
                Walk::best(torus, fsdp, model),
                Walk::best(torus, data, multiply(model, fsdp)),
            ];
            let length = |walks: &[Walk; 3]| walks.each_ref().map(|walk| walk.round_trip);
            if best
                .as_ref()
                .is_none_or(|best| length(&walks) < length(best))
            {
                best = Some(walks);
            }
        }
    }
    // Every axis can be cut, see above, so there is a best one.
    let [model, fsdp, data] = best.unwrap_or_default().map(|walk| walk.places);
    let mut places = Vec::with_capacity(mesh.devices());
    for d in &data {
        for f in &fsdp {
            places.extend(model.iter().map(|m| add(*d, add(*f, *m))));
        }
    }
    places
}

/// The boxes of `count` chips that tile a box. Those that are long in the first dimensions come
/// first, since a host's chips are neighbors there.
fn boxes(within: [usize; 3], count: usize) -> impl Iterator<Item = [usize; 3]> {
    let divisors = |n: usize| (1..=n).rev().filter(move |d| n.is_multiple_of(*d));
    let [x, y, z] = within;
    divisors(x).flat_map(move |a| {
        divisors(y).filter_map(move |b| {
            let c = count / (a * b);
            let tiles = c > 0 && z.is_multiple_of(c) && a * b * c == count;
            tiles.then_some([a, b, c])
        })
    })
}

/// A way through a box of places that are `step` apart, in each of which it is once.
#[derive(Default)]
struct Walk {
    places: Vec<[usize; 3]>,
    /// The links on the way, and back from its end to its beginning.
    round_trip: usize,
}

impl Walk {
    fn best(torus: &Torus, lengths: [usize; 3], step: [usize; 3]) -> Walk {
        let mut best: Option<Walk> = None;
        for dimensions in ORDERS {
            for places in [snake(lengths, &dimensions), ring(lengths, dimensions)] {
                let places: Vec<_> = places.iter().map(|&p| multiply(p, step)).collect();
                let next = places.iter().cycle().skip(1);
                let round_trip = places
                    .iter()
                    .zip(next)
                    .map(|(&from, &to)| torus.distance(from, to))
                    .sum();
                // Equally long ones are equally good; the first is kept.
                if !places.is_empty() && best.as_ref().is_none_or(|b| round_trip < b.round_trip) {
                    best = Some(Walk { places, round_trip });
                }
            }
        }
        best.unwrap_or_default()
    }
}

/// The orders in which dimensions can be walked, the one that moves the fastest first.
const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [1, 0, 2],
    [0, 2, 1],
    [2, 0, 1],
    [1, 2, 0],
    [2, 1, 0],
];

/// Back and forth through the given dimensions of a box, the first moving the fastest; the others
/// stay at 0. Each step goes to a neighbor.
fn snake(lengths: [usize; 3], dimensions: &[usize]) -> Vec<[usize; 3]> {
    let mut places = vec![[0; 3]];
    for &dimension in dimensions {
        let line = std::mem::take(&mut places);
        for i in 0..lengths[dimension] {
            let at = |mut place: [usize; 3]| {
                place[dimension] = i;
                place
            };
            if i.is_multiple_of(2) {
                places.extend(line.iter().copied().map(at));
            } else {
                places.extend(line.iter().rev().copied().map(at));
            }
        }
    }
    places
}

/// A ring through a box without links around it: row by row through all columns but the first, and
/// back along that one. It closes if the number of rows is even; nothing if it is not, or if there
/// are no two columns. The last dimension counts the rows, and a snake through the others the
/// columns.
fn ring(lengths: [usize; 3], dimensions: [usize; 3]) -> Vec<[usize; 3]> {
    let [columns @ .., rows] = dimensions;
    let line = snake(lengths, &columns);
    let [first, others @ ..] = line.as_slice() else {
        return vec![];
    };
    if others.is_empty() || !lengths[rows].is_multiple_of(2) {
        return vec![];
    }
    let at = |row: usize, place: &[usize; 3]| {
        let mut place = *place;
        place[rows] = row;
        place
    };
    let mut places = Vec::new();
    for row in 0..lengths[rows] {
        if row.is_multiple_of(2) {
            places.extend(others.iter().map(|place| at(row, place)));
        } else {
            places.extend(others.iter().rev().map(|place| at(row, place)));
        }
    }
    places.extend((0..lengths[rows]).rev().map(|row| at(row, first)));
    places
}

fn add(a: [usize; 3], b: [usize; 3]) -> [usize; 3] {
    std::array::from_fn(|i| a[i] + b[i])
}

fn multiply(a: [usize; 3], b: [usize; 3]) -> [usize; 3] {
    std::array::from_fn(|i| a[i] * b[i])
}

fn divide(a: [usize; 3], b: [usize; 3]) -> [usize; 3] {
    std::array::from_fn(|i| a[i] / b[i])
}

#[cfg(test)]
mod tests;
