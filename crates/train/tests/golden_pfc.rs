//! The head against what `PartialFC_V2` of InsightFace computed, every rank a process.

#![allow(clippy::unwrap_used)] // helpers of tests may

#[path = "../../head/tests/support/golden.rs"]
mod golden;
#[path = "support/ranks.rs"]
mod ranks;

use std::sync::Arc;

use golden::{Case, EXACT, Look, check_rank, head_of_rank};
use pfc_head::Communicator;
use pfc_train::ranks::GroupMember;

#[test]
fn every_golden_case_comes_out_the_same_where_each_rank_is_a_process() {
    let name = "every_golden_case_comes_out_the_same_where_each_rank_is_a_process";
    let on_ranks = |path: &str, world| {
        ranks::on_ranks(name, path, world, |group| {
            let case = Case::open(ranks::variant().into());
            let member = Box::new(GroupMember::new(Arc::new(group)));
            let rank = member.rank();
            let head = head_of_rank(&case, member, &case.config());
            check_rank(&case, rank, head, Look::EveryStep, EXACT);
        })
    };
    if pfc_testing::is_again(name) {
        on_ranks("", 0);
    }
    for path in golden::cases() {
        let world = Case::open(path.clone()).world();
        on_ranks(path.to_str().unwrap(), world);
    }
}
