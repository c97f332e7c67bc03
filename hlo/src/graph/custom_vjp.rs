//! Hand-written VJPs. The graph keeps them; an operation refers to its own by number.

use std::rc::Rc;

use super::{Graph, Tensor};
use crate::ir::VjpRuleId;

/// A hand-written VJP: `(operands, output, dy)` to one cotangent an input. See
/// [`Tensor::custom_vjp`].
pub(crate) trait VjpRule {
    fn apply<'g>(
        &self,
        operands: &[Tensor<'g>],
        output: Tensor<'g>,
        dy: Tensor<'g>,
    ) -> Vec<Tensor<'g>>;
}

impl<F: for<'a> Fn(&[Tensor<'a>], Tensor<'a>, Tensor<'a>) -> Vec<Tensor<'a>>> VjpRule for F {
    fn apply<'g>(
        &self,
        operands: &[Tensor<'g>],
        output: Tensor<'g>,
        dy: Tensor<'g>,
    ) -> Vec<Tensor<'g>> {
        self(operands, output, dy)
    }
}

impl Graph {
    /// Keeps a rule for operations of this graph.
    pub(crate) fn add_vjp_rule(&self, rule: Rc<dyn VjpRule>) -> VjpRuleId {
        let rules = &mut self.state.borrow_mut().vjp_rules;
        rules.push(rule);
        VjpRuleId(rules.len() - 1)
    }

    /// The rule of this number, which this graph gave.
    pub(crate) fn vjp_rule(&self, id: VjpRuleId) -> Rc<dyn VjpRule> {
        self.state.borrow().vjp_rules[id.0].clone()
    }
}
