//! Whether the state of a run is good: by what steps report, a state may be saved, or the run has
//! to go back to one that was.

use std::fmt;

use crate::programs::StepMetrics;

/// What is wrong with a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The updates of so many steps in a row were skipped, for their loss or the norm of their
    /// gradients was not finite.
    Skipped {
        /// The first of them.
        from: u64,
        /// The last.
        to: u64,
        /// Its loss.
        loss: f32,
    },
    /// An update made numbers of the state that are not finite.
    NotFinite {
        /// Its step.
        step: u64,
        /// How many there are.
        numbers: f32,
    },
    /// The held-out loss is not finite.
    HeldOut {
        /// The step after which it was measured.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// There were such numbers before the step, whose update was skipped.
    WasNotFinite {
        /// The step.
        step: u64,
        /// How many there are.
        numbers: f32,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Fault::Skipped { from, to, loss } if from == to => {
                write!(
                    f,
                    "the update of step {to} was skipped, for its loss is {loss} or its gradients are not finite"
                )
            }
            Fault::Skipped { from, to, loss } => write!(
                f,
                "the updates of steps {from} to {to} were skipped, for their losses (the last is {loss}) or their gradients are not finite"
            ),
            Fault::NotFinite { step, numbers } => write!(
                f,
                "the update of step {step} made {numbers} numbers of the state that are not finite"
            ),
            Fault::HeldOut { step, loss } => {
                write!(f, "the held-out loss after step {step} is {loss}")
            }
            Fault::WasNotFinite { step, numbers } => write!(
                f,
                "{numbers} numbers of the state were not finite before step {step}"
            ),
        }
    }
}

/// What the steps since the state was loaded say of it.
#[derive(Debug)]
pub(super) struct Health {
    /// Skipped updates in a row that are a fault.
    limit: u64,
    /// The last step that was reported.
    last: u64,
    /// The skipped updates up to it, if it is one.
    skipped: Option<Skipped>,
    /// The first fault, and the step that showed it.
    fault: Option<(u64, Fault)>,
    /// Whether any step was good.
    any_good: bool,
}

#[derive(Clone, Copy, Debug)]
struct Skipped {
    from: u64,
    loss: f32,
}

impl Health {
    /// For a state that was just loaded or drawn. So many skipped updates in a row are a fault.
    pub fn new(limit: u64) -> Health {
        Health {
            limit,
            last: 0,
            skipped: None,
            fault: None,
            any_good: false,
        }
    }

    /// Takes in what a step reports; steps come in their order.
    pub fn step(&mut self, step: u64, numbers: &StepMetrics<f32>) {
        let skipped = numbers.skipped != 0.0;
        self.last = step;
        self.skipped = skipped.then(|| Skipped {
            from: self.skipped.map_or(step, |skipped| skipped.from),
            loss: numbers.loss,
        });
        self.any_good |= !skipped && numbers.non_finite == 0.0;
        if self.fault.is_some() {
            return;
        }
        let numbers = numbers.non_finite;
        let fault = match (numbers == 0.0, skipped) {
            (true, _) => self.in_a_row().filter(|_| self.is_limit_reached()),
            (false, true) => Some(Fault::WasNotFinite { step, numbers }),
            (false, false) => Some(Fault::NotFinite { step, numbers }),
        };
        self.fault = fault.map(|fault| (step, fault));
    }

    /// Takes in the held-out loss after the last step that was started.
    pub fn evaluation(&mut self, step: u64, loss: f64) {
        if self.fault.is_none() && !loss.is_finite() {
            self.fault = Some((step, Fault::HeldOut { step, loss }));
        }
    }

    fn is_limit_reached(&self) -> bool {
        self.skipped
            .is_some_and(|skipped| self.last - skipped.from + 1 >= self.limit)
    }

    fn in_a_row(&self) -> Option<Fault> {
        let Skipped { from, loss } = self.skipped?;
        let to = self.last;
        Some(Fault::Skipped { from, to, loss })
    }

    /// The first fault, if a step up to this one showed it.
    pub fn fault_until(&self, step: u64) -> Option<Fault> {
        self.fault
            .filter(|(at, _)| *at <= step)
            .map(|(_, fault)| fault)
    }

    /// Why the state after the last step may not be good: a fault, or that its update was skipped,
    /// be it for the state or for the batch.
    pub fn doubt(&self) -> Option<Fault> {
        self.fault_until(u64::MAX).or_else(|| self.in_a_row())
    }

    /// Whether any step since the state was loaded was good.
    pub fn any_good(&self) -> bool {
        self.any_good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(limit: u64, steps: &[(f32, f32)]) -> Health {
        let mut health = Health::new(limit);
        for (step, &(skipped, non_finite)) in (1..).zip(steps) {
            let numbers = StepMetrics {
                loss: if skipped == 0.0 { 2.0 } else { f32::INFINITY },
                skipped,
                non_finite,
                ..StepMetrics::default()
            };
            health.step(step, &numbers);
        }
        health
    }

    const GOOD: (f32, f32) = (0.0, 0.0);
    const SKIPPED: (f32, f32) = (1.0, 0.0);

    #[test]
    fn a_few_skipped_updates_are_in_doubt_and_no_fault() {
        let mut health = health(3, &[GOOD, SKIPPED, SKIPPED, GOOD, SKIPPED]);
        assert_eq!(health.fault_until(u64::MAX), None);
        let loss = f32::INFINITY;
        assert_eq!(
            health.doubt(),
            Some(Fault::Skipped {
                from: 5,
                to: 5,
                loss
            })
        );
        health.step(6, &StepMetrics::default());
        assert_eq!(health.doubt(), None);
    }

    #[test]
    fn as_many_in_a_row_as_the_limit_are_a_fault_from_that_step_on() {
        let health = health(3, &[GOOD, SKIPPED, SKIPPED, SKIPPED, GOOD]);
        assert_eq!(health.fault_until(3), None);
        let loss = f32::INFINITY;
        let fault = Some(Fault::Skipped {
            from: 2,
            to: 4,
            loss,
        });
        assert_eq!((health.fault_until(4), health.doubt()), (fault, fault));
    }

    #[test]
    fn it_is_known_whether_an_update_or_the_state_before_it_is_to_blame() {
        let numbers = 7.0;
        let update = health(3, &[GOOD, (0.0, 7.0), (1.0, 7.0)]);
        assert_eq!(update.doubt(), Some(Fault::NotFinite { step: 2, numbers }));
        assert!(update.any_good());
        let before = health(3, &[(1.0, 7.0)]);
        assert_eq!(
            before.doubt(),
            Some(Fault::WasNotFinite { step: 1, numbers })
        );
        assert!(!before.any_good());
    }
}
