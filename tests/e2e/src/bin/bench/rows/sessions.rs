use crate::{Bench, report::Report};
pub fn many(_: &Bench, _: &[&str], _: &mut Report) {}
pub fn idle(_: &Bench, _: &[&str], _: &mut Report) {}
pub fn slow_readers(_: &Bench, _: &[&str], _: &mut Report) {}
pub fn prefetch(_: &Bench, _: &[&str], _: &mut Report) {}
