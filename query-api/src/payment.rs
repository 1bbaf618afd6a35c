//! What a price costs a month.

use crate::{parameters::Parameters, problem::Problem};

/// Terms of a loan, unless the buyer names others.
const APR: f64 = 7.99;
const TERM_MONTHS: u32 = 60;
const LONGEST_TERM: u32 = 120;

/// A loan's terms.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct PaymentTerms {
    /// Yearly interest in percent, compounded monthly.
    pub(crate) apr: f64,
    pub(crate) term_months: u32,
    /// Paid at once.
    pub(crate) down: f64,
}

impl Default for PaymentTerms {
    fn default() -> Self {
        Self { apr: APR, term_months: TERM_MONTHS, down: 0.0 }
    }
}

impl PaymentTerms {
    /// From `apr`, `term_months` and `down`.
    ///
    /// # Errors
    /// When one of them is out of bounds.
    pub(crate) fn of(parameters: &Parameters) -> Result<Self, Problem> {
        let apr = parameters.parsed("apr", "a rate in percent")?.unwrap_or(APR);
        let term_months = parameters.parsed("term_months", "a number of months")?.unwrap_or(TERM_MONTHS);
        let down = parameters.parsed("down", "an amount")?.unwrap_or(0.0);
        if !(0.0..=100.0).contains(&apr) {
            return Err(Problem::parameter("apr", format!("apr is 0 to 100 percent, not {apr}")));
        }
        if !(1..=LONGEST_TERM).contains(&term_months) {
            let detail = format!("term_months is 1 to {LONGEST_TERM}, not {term_months}");
            return Err(Problem::parameter("term_months", detail));
        }
        if !(0.0..=1e9).contains(&down) {
            return Err(Problem::parameter("down", format!("down is an amount, at least 0, not {down}")));
        }
        Ok(Self { apr, term_months, down })
    }

    /// How much is lent for one unit a month.
    fn lent_per_unit(&self) -> f64 {
        let (rate, months) = (self.apr / 1_200.0, f64::from(self.term_months));
        if rate == 0.0 { months } else { -(-months * rate.ln_1p()).exp_m1() / rate }
    }

    /// What a price costs a month.
    #[must_use]
    pub(crate) fn monthly(&self, price: f64) -> f64 {
        (price - self.down).max(0.0) / self.lent_per_unit()
    }

    /// The highest price that costs at most so much a month.
    #[must_use]
    pub(crate) fn affordable(&self, monthly: f64) -> f64 {
        // The price itself, not a hair below it, costs just that.
        monthly.mul_add(self.lent_per_unit(), self.down) + 1e-6
    }
}

#[cfg(test)]
mod tests {
    use super::PaymentTerms;

    #[test]
    fn a_loan_of_20000_at_6_percent_over_60_months_costs_386_66_a_month() {
        let terms = PaymentTerms { apr: 6.0, term_months: 60, down: 1_000.0 };
        assert!((terms.monthly(21_000.0) - 386.656).abs() < 0.001, "{}", terms.monthly(21_000.0));
        assert!((terms.affordable(terms.monthly(21_000.0)) - 21_000.0).abs() < 0.01);
        let free = PaymentTerms { apr: 0.0, term_months: 10, down: 0.0 };
        assert_eq!((free.monthly(1_000.0), free.monthly(-5.0)), (100.0, 0.0));
    }
}
