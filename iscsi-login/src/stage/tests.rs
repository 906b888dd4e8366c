use super::*;

const SEC: Stage = Stage::SecurityNegotiation;
const OP: Stage = Stage::LoginOperationalNegotiation;
const RES: Stage = Stage::Reserved;
const FFP: Stage = Stage::FullFeaturePhase;
const STAGES: [Stage; 4] = [SEC, OP, RES, FFP];

/// The table of RFC 7143 section 6.3, all of it and all that is not in it.
// req: 7143-6.3-15, 7143-6.3-7, 7143-6.3-9
#[test]
fn transitions() {
    let yes = [(None, SEC), (None, OP), (Some(SEC), OP), (Some(SEC), FFP), (Some(OP), FFP)];
    for from in [None, Some(SEC), Some(OP), Some(RES), Some(FFP)] {
        for to in STAGES {
            assert_eq!(transition_allowed(from, to), yes.contains(&(from, to)), "{from:?} -> {to:?}");
        }
    }
}

fn fields(transit: bool, continue_text: bool, csg: Stage, nsg: Stage) -> StageFields {
    StageFields { transit, continue_text, csg, nsg }
}

/// Every stage the login can be in, with every combination of T, C, CSG and NSG of a request.
// req: 7143-6.3-15, 7143-6.3-9, 7143-6.2-1
#[test]
fn requests_full_matrix() {
    let mut accepted = Vec::new();
    for current in [None, Some(SEC), Some(OP)] {
        for (csg, nsg) in STAGES.iter().flat_map(|c| STAGES.iter().map(move |n| (*c, *n))) {
            for (t, c) in [(false, false), (false, true), (true, false), (true, true)] {
                let result = fields(t, c, csg, nsg).check_request(current);
                if t && c {
                    assert_eq!(result, Err(Rule::ContinueWithTransit));
                } else if result.is_ok() {
                    accepted.push((current, csg, t.then_some(nsg), c));
                } else {
                    assert_eq!(result, Err(Rule::Stage));
                }
            }
        }
    }
    // NSG has no meaning with T = 0: any is accepted then.
    accepted.dedup();
    let mut expected = Vec::new();
    for (current, csg, nexts) in [
        (None, SEC, &[OP, FFP][..]),
        (None, OP, &[FFP]),
        (Some(SEC), SEC, &[OP, FFP]),
        (Some(OP), OP, &[FFP]),
    ] {
        for nsg in STAGES {
            expected.push((current, csg, None, false));
            expected.push((current, csg, None, true));
            if nexts.contains(&nsg) {
                expected.push((current, csg, Some(nsg), false));
            }
        }
    }
    assert_eq!(accepted, expected);
}

/// Every response to every legal request.
// req: 7143-6.3-12, 7143-6.3-13, 7143-11.13.6-2
#[test]
fn responses_full_matrix() {
    for request in [
        fields(false, false, SEC, SEC),
        fields(false, true, SEC, SEC),
        fields(true, false, SEC, OP),
        fields(true, false, SEC, FFP),
        fields(false, false, OP, SEC),
        fields(true, false, OP, FFP),
    ] {
        for (csg, nsg) in STAGES.iter().flat_map(|c| STAGES.iter().map(move |n| (*c, *n))) {
            for (t, c) in [(false, false), (false, true), (true, false), (true, true)] {
                let result = fields(t, c, csg, nsg).check_response(request);
                let expected = if t && c {
                    Err(Rule::ContinueWithTransit)
                } else if csg != request.csg {
                    Err(Rule::Stage)
                } else if !t {
                    Ok(())
                } else {
                    let legal = match (request.transit, request.csg, request.nsg) {
                        (true, SEC, OP) => nsg == OP,
                        (true, SEC, FFP) => nsg == OP || nsg == FFP,
                        (true, OP, FFP) => nsg == FFP,
                        _ => false,
                    };
                    if legal { Ok(()) } else { Err(Rule::Stage) }
                };
                assert_eq!(result, expected, "{request:?} answered {t} {c} {csg:?} {nsg:?}");
            }
        }
    }
}
