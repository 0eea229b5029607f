//! What the compiler cannot say about this tree, said as tests: which way the crates may lean, what each may touch,
//! how long a file may be, what a name may be, where a link leads. A finding is one line: `file:line: rule: detail`.

mod counted;
mod crates;
mod findings;
mod licences;
mod links;
mod mask;
mod reach;
mod readers;
mod size;
mod tree;
mod unsafety;
mod words;

use findings::Findings;

fn check(rule: impl FnOnce(&tree::Tree, &mut Findings)) {
    let mut findings = Findings::default();
    rule(tree::Tree::get(), &mut findings);
    findings.report();
}

#[test]
fn crates_lean_downward_only() {
    check(crates::layers);
}

#[test]
fn only_xds_knows_protobuf_and_no_engine_crate_reads_yaml() {
    check(crates::formats);
}

#[test]
fn versions_stand_in_the_root_manifest_only() {
    check(crates::versions);
}

#[test]
fn decisions_and_codecs_touch_no_clock_file_environment_or_socket() {
    check(reach::pure_crates);
}

#[test]
fn the_engine_reads_no_environment_variable() {
    check(reach::environment);
}

#[test]
fn every_statistic_is_written_and_those_of_envoy_that_are_not_have_a_reason() {
    check(counted::check);
}

#[test]
fn whatever_a_snapshot_holds_is_read() {
    check(readers::check);
}

#[test]
fn unsafe_code_stays_in_the_runtime_and_says_why_it_is_safe() {
    check(unsafety::check);
}

#[test]
fn files_and_functions_stay_short() {
    check(size::check);
}

#[test]
fn nothing_unfinished_and_no_name_that_says_nothing() {
    check(words::check);
}

#[test]
fn links_in_the_documents_resolve() {
    check(links::check);
}

#[test]
fn every_dependency_has_a_licence_we_may_ship() {
    check(licences::check);
}
