//! Runs every rule over this repository; each is a test of its own, so that a breach says which rule it breaks.

use std::sync::OnceLock;

use ionian_tidy::allow::{self, AllowList};
use ionian_tidy::graph::Graph;
use ionian_tidy::repo::{Repo, root};
use ionian_tidy::rules::{
    banned, dependencies, documents, edges, faults, files, fuzz, leaks, licences, purity, unsafety,
};
use ionian_tidy::{Finding, report};

struct World {
    repo: Repo,
    main: Graph,
    fuzz: Graph,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| World {
        repo: Repo::read().expect("the repository can be read"),
        main: Graph::read(&root(), "Cargo.toml").expect("cargo describes the workspace"),
        fuzz: Graph::read(&root(), "tests/fuzz/Cargo.toml")
            .expect("cargo describes the fuzz targets"),
    })
}

fn allow_list() -> (AllowList, Vec<Finding>) {
    AllowList::parse(
        world()
            .repo
            .get(allow::PATH)
            .map_or("", |f| f.text.as_str()),
    )
}

fn document(path: &str) -> &'static str {
    world().repo.get(path).map_or("", |f| f.text.as_str())
}

fn assert_none(findings: &[Finding]) {
    assert!(findings.is_empty(), "{}", report(findings));
}

#[test]
fn edges_between_crates_are_in_the_table() {
    assert_none(&edges::check(&world().main));
    assert_none(&edges::check(&world().fuzz));
}

#[test]
fn the_fault_menu_names_tests_that_exist() {
    assert_none(&faults::check(&world().repo));
}

#[test]
fn no_file_is_too_long() {
    assert_none(&files::size(&world().repo));
}

#[test]
fn every_file_opens_with_its_idea() {
    assert_none(&files::headers(&world().repo));
}

#[test]
fn every_crate_is_described_and_inherits_lints_and_licence() {
    assert_none(&files::manifests(&world().main, &world().repo));
}

#[test]
fn licences_are_permissive() {
    assert_none(&licences::check(&world().main));
    assert_none(&licences::check(&world().fuzz));
}

#[test]
fn every_dependency_has_its_reason() {
    assert_none(&dependencies::check(
        &[&world().main, &world().fuzz],
        document(dependencies::PATH),
    ));
}

#[test]
fn no_package_is_a_prerelease() {
    assert_none(&dependencies::stable(&world().main));
    assert_none(&dependencies::stable(&world().fuzz));
}

#[test]
fn sans_io_crates_are_pure() {
    assert_none(&purity::sources(&world().repo, &mut allow_list().0));
    assert_none(&purity::packages(&world().main));
}

#[test]
fn nothing_banned_stands_anywhere() {
    assert_none(&banned::check(&world().repo, &mut allow_list().0));
}

#[test]
fn unsafe_stands_only_in_drivers_and_runtime() {
    assert_none(&unsafety::placement(&world().repo, &mut allow_list().0));
}

#[test]
fn slices_are_made_from_raw_parts_in_the_named_files_only() {
    assert_none(&unsafety::raw_parts(&world().repo));
}

#[test]
fn the_other_crates_forbid_unsafe_code() {
    assert_none(&unsafety::forbidden_elsewhere(
        &world().main,
        &world().repo,
        &allow_list().0,
    ));
}

#[test]
fn no_path_of_a_machine_and_no_registry_host_is_named() {
    assert_none(&leaks::check(&world().repo));
}

#[test]
fn links_in_documents_resolve() {
    assert_none(&documents::links(&world().repo));
}

#[test]
fn terms_are_sorted() {
    assert_none(&documents::terms(document(documents::TERMS)));
}

#[test]
fn the_image_is_built_from_files_that_exist() {
    assert_none(&documents::image(&world().repo));
}

#[test]
fn every_fuzz_target_has_a_corpus() {
    assert_none(&fuzz::check(&world().repo));
}

#[test]
fn every_exception_has_a_reason_and_is_needed() {
    let (mut list, refused) = allow_list();
    assert_none(&refused);
    let repo = &world().repo;
    // What the rules find is judged by their own tests; here they only mark which exceptions they needed.
    for findings in [
        banned::check(repo, &mut list),
        purity::sources(repo, &mut list),
        unsafety::placement(repo, &mut list),
    ] {
        drop(findings);
    }
    assert_none(&list.unused());
}
