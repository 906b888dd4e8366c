use super::*;

fn cited(src: &str) -> Vec<(String, Place)> {
    citations(src, Place::Code, false, &|id| id == "7143-11.8-1")
        .into_iter()
        .map(|c| (c.id, c.place))
        .collect()
}

fn places(src: &str) -> Vec<Place> {
    cited(src).into_iter().map(|(_, place)| place).collect()
}

fn ids(src: &str) -> Vec<String> {
    cited(src).into_iter().map(|(id, _)| id).collect()
}

#[test]
fn the_body_of_a_test_is_a_test() {
    let src = "fn code() { // req: 7143-11.8-1\n}\n#[test]\nfn t() { // req: 7143-11.8-2\n }";
    assert_eq!(places(src), [Place::Code, Place::Test]);
    assert_eq!(ids(src), ["7143-11.8-1", "7143-11.8-2"]);
}

#[test]
fn so_are_the_comments_and_attributes_right_above() {
    assert_eq!(places("// req: 7143-1-1\n#[test]\nfn t() {}"), [Place::Test]);
    assert_eq!(places("/// Doc.\n/// req: 7143-1-1\n#[tokio::test]\nasync fn t() {}"), [Place::Test]);
    assert_eq!(places("#[test]\n// req: 7143-1-1\nfn t() {}"), [Place::Test]);
    assert_eq!(places("#[test] // req: 7143-1-1\nfn t() {}"), [Place::Test]);
    assert_eq!(places("#[rstest]\n#[case(1)] // req: 7143-1-1\npub(crate) fn t() {}"), [Place::Test]);
}

#[test]
fn a_blank_line_or_an_item_between_parts_them() {
    assert_eq!(places("// req: 7143-1-1\n\n#[test]\nfn t() {}"), [Place::Code]);
    assert_eq!(places("const A: u8 = 1; // req: 7143-1-1\n#[test]\nfn t() {}"), [Place::Code]);
    assert_eq!(places("// req: 7143-1-1\nstruct A;\n#[test]\nfn t() {}"), [Place::Code]);
}

#[test]
fn an_ignored_test_and_a_helper_do_not_count_as_tests() {
    assert_eq!(places("#[test]\n#[ignore]\nfn t() { /* req: 7143-1-1 */ }"), [Place::Ignored]);
    assert_eq!(
        places(
            "#[cfg(test)]\nmod tests {\n fn h() { // req: 7143-1-1\n}\n#[test] fn t() { // req: 7143-1-2\n} }"
        ),
        [Place::Support, Place::Test]
    );
    assert_eq!(places("#[cfg(not(test))]\nfn f() { // req: 7143-1-1\n}"), [Place::Code]);
}

#[test]
fn functions_of_proptest_are_tests() {
    let src = "// req: 7143-1-1\nproptest! {\n #![proptest_config(x())]\n // req: 7143-1-2\n fn p(a in 0..3) {\n\
               fn inner() {}\n // req: 7143-1-3\n }\n}\nfn after() { // req: 7143-1-4\n}";
    assert_eq!(places(src), [Place::Test, Place::Test, Place::Test, Place::Code]);
}

#[test]
fn public_functions_of_a_scenario_file_are_tests() {
    let src = "/// req: 7143-1-1\npub fn s() { // req: 7143-1-2\n}\nfn h() { // req: 7143-1-3\n}";
    let found = citations(src, Place::Support, true, &|_| false);
    let places: Vec<_> = found.into_iter().map(|c| c.place).collect();
    assert_eq!(places, [Place::Test, Place::Test, Place::Support]);
}

#[test]
fn several_ids_follow_one_mark_and_lines_go_on() {
    assert_eq!(
        ids("// req: 7143-1-1, 7143-1-2 7145-C.3-1; then prose 7143-9-9\n//      7143-1-4.\n// 7143-1-5\nx"),
        ["7143-1-1", "7143-1-2", "7145-C.3-1", "7143-1-4", "7143-1-5"]
    );
    assert_eq!(ids("// 7143-1-1"), [""; 0]);
    assert_eq!(ids("/* req: 7143-1-1 */"), ["7143-1-1"]);
    assert_eq!(ids("/*\n * req: 7143-1-1,\n * 7143-1-2\n */"), ["7143-1-1", "7143-1-2"]);
}

#[test]
fn what_only_looks_like_a_citation_is_none() {
    assert_eq!(ids("// prereq: 7143-1-1"), [""; 0]);
    assert_eq!(ids("let s = \"// req: 7143-1-1\";"), [""; 0]);
    assert_eq!(ids("// req: see section 4"), [""; 0]);
    assert_eq!(ids("fn req_7143_11_8_1() {}"), [""; 0]);
}

#[test]
fn a_name_cites_the_longest_id_that_exists() {
    assert_eq!(ids("#[test]\nfn req_7143_11_8_1_of_2() {}"), ["7143-11.8-1"]);
    assert_eq!(ids("#[test]\nfn req_7143_11_8_1_3() {}"), ["7143-11.8-1"]);
    assert_eq!(ids("#[test]\nfn checks_req_7143_99_1() {}"), ["7143-99-1"]);
}

#[test]
fn lines_are_counted_from_one() {
    let found = citations("\n\n// req: 7143-1-1\n", Place::Code, false, &|_| false);
    assert_eq!(found[0].line, 3);
}
