//! Interleavings, one per line: the events, and the conclusion at each observation.
//!
//! `AX`: caller A gets body X. `A1X`: the same, with a query that a fill would withhold. `<A` and
//! `>AX`: the same in two halves, so that other events come between. `w`: a write that does not
//! purge the key. `p`: a write that purges it. `e`: the stored response expires.
//!
//! `.`: nothing. `c0`, `c1`: stale, changed since an observation that so many writes followed. `s`:
//! still stale. `!`: another caller's. `v`: volatile from here on.

use super::*;

#[derive(Default)]
struct HistoryStage {
    history: History,
    step: StepNumber,
    writes: Vec<(StepNumber, StepNumber)>,
    open: Vec<(Caller, StepNumber, bool)>,
}

impl HistoryStage {
    fn next(&mut self) -> StepNumber {
        self.step += 1;
        self.step
    }

    fn begin(&mut self, caller: Caller) {
        let sent = self.next();
        self.open.push((caller, sent, self.history.stored().is_some()));
    }

    fn end(&mut self, caller: Caller, digest: u8) -> String {
        let at = self.open.iter().position(|(open, _, _)| *open == caller).expect("it was begun");
        let (_, sent, hit) = self.open.remove(at);
        let span = StepSpan { sent, done: self.next(), purges: 0 };
        let look = Observation { caller, digest: [digest; 16], span, hit };
        let since =
            |span: &StepSpan| self.writes.iter().filter(|(_, ended)| *ended >= span.sent).count();
        let verdict = self.history.observe(&look, &since);
        let mut said = match verdict.stale {
            Some(StaleFinding::Changed { since: from }) => format!("c{}", since(&from)),
            Some(StaleFinding::Still) => "s".to_owned(),
            None => String::new(),
        };
        said.push_str(if verdict.scope { "!" } else { "" });
        said.push_str(if verdict.turned_volatile { "v" } else { "" });
        if !hit {
            self.history.store(Some(Stored::new(caller, Some(look.digest), span)));
        }
        if said.is_empty() { ".".to_owned() } else { said }
    }

    fn play(script: &str) -> String {
        let mut stage = Self::default();
        let mut said = Vec::new();
        for word in script.split(' ') {
            let caller = |name: &str| {
                let aside = name[1..].chars().take_while(char::is_ascii_digit).collect::<String>();
                Caller {
                    credential: u64::from(name.as_bytes()[0]),
                    withheld_query: aside.parse().unwrap_or(0),
                }
            };
            let digest = *word.as_bytes().last().expect("no empty word");
            match word {
                "w" | "p" => {
                    let began = stage.next();
                    let ended = stage.next();
                    stage.writes.push((began, ended));
                    if word == "p" {
                        stage.history.store(None);
                    }
                }
                "e" => stage.history.store(None),
                _ if word.starts_with('<') => stage.begin(caller(&word[1..])),
                _ if word.starts_with('>') => said.push(stage.end(caller(&word[1..]), digest)),
                _ => {
                    stage.begin(caller(word));
                    said.push(stage.end(caller(word), digest));
                }
            }
        }
        said.join(" ")
    }
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (script, expected) in cases {
        assert_eq!(HistoryStage::play(script), *expected, "{script}");
    }
}

#[test]
fn a_change_after_a_write_that_purges_nothing_is_stale_until_the_entry_goes() {
    check(&[
        ("AX AX AX", ". . ."),
        ("AX w AX", ". ."),
        ("AX w AY AY AY", ". c1 s s"),
        ("AX w AY e AY AY", ". c1 . ."),
        ("AX w AY w AZ", ". c1 c1"),
        ("AX w w w AY", ". c3"),
        // The body returns to the stored one.
        ("AX w AY w AX AX", ". c1 . ."),
        // A write in flight when the request began, and one that began during the request.
        ("AX <A w >AY", ". c1"),
    ]);
}

#[test]
fn a_change_that_is_purged_or_expires_is_none() {
    check(&[
        ("AX p AY", ". ."),
        ("AX p AY p AZ p AX", ". . . ."),
        ("AX e AX", ". ."),
        ("AX p BY p AX", ". . ."),
    ]);
}

#[test]
fn who_has_seen_no_change_proves_none() {
    check(&[
        // B's body may always have been Y.
        ("AX w BY", ". ."),
        ("AX w BY AY BY", ". . c1 s"),
        ("AX BX w BY AY", ". . c1 s"),
        ("AX w AY CY BY", ". c1 s s"),
        ("AX w AY BZ", ". c1 ."),
    ]);
}

#[test]
fn two_callers_with_two_bodies_are_told_from_a_change() {
    check(&[
        ("AX BY", ". ."),
        ("AX BY CZ DQ", ". . . ."),
        ("AX BY AX", ". . !"),
        ("AX BY AX BY CZ", ". . ! ! !"),
        ("AX BY BY AX", ". . . !"),
        // One write explains one change, but not two, there and back.
        ("AX w BY AX", ". . !"),
        ("AX w BY w AX", ". . ."),
        ("AX w BY w AX w BY w AX", ". . . . !"),
        // The order of two overlapping observations is unknown.
        ("AX <A BY >AX", ". . ."),
        ("AX <B AX >BY", ". . ."),
        ("AX <B AX >BY AX", ". . . ."),
        ("AX <B AX >BY AX BY AX", ". . . . ! ."),
        // The stored response was replaced by the other caller's.
        ("AX e BY AX", ". . !"),
        ("AX p BY p AX", ". . ."),
    ]);
}

#[test]
fn both_are_found_on_one_key() {
    check(&[("AX BY AX w AQ BR BR AQ", ". . ! c1 c1 s s"), ("AX w AY BZ AY", ". c1 . s!")]);
}

#[test]
fn what_differs_by_itself_is_put_down_to_nobody() {
    check(&[
        ("AX AY AZ", ". c0 c0v"),
        ("AX e AY e AZ", ". . v"),
        ("AX AY AZ BQ AR BQ CQ", ". c0 c0v . c0 . ."),
        // Most observations agree: something changes the body now and then.
        ("AX AX AX AX AX AX AY AZ", ". . . . . . c0 c0"),
    ]);
    let mut stage = HistoryStage::default();
    let caller = Caller { credential: 1, withheld_query: 0 };
    for digest in 0..4 {
        stage.begin(caller);
        stage.end(caller, digest);
    }
    assert!(stage.history.is_volatile() && !stage.history.has_stayed());
}

#[test]
fn a_query_that_no_key_has_seen_is_no_change() {
    check(&[
        ("A1X A2Y A1X", ". . ."),
        ("A1X w A2Y", ". ."),
        ("A1X A2Y w A1Z", ". . c1"),
        // The withheld query was seen to be irrelevant.
        ("A1X A2X w A3Y", ". . c1"),
        ("A1X B2Y A1X", ". . ."),
    ]);
}

#[test]
fn callers_are_bounded_and_the_oldest_goes_first() {
    let mut stage = HistoryStage::default();
    let mut crowded = 0;
    for who in 0..1000 {
        let span = StepSpan { sent: stage.next(), done: stage.next(), purges: 0 };
        let look = Observation {
            caller: Caller { credential: who, withheld_query: 0 },
            digest: [0; 16],
            span,
            hit: false,
        };
        crowded += usize::from(stage.history.observe(&look, &|_| 0).forgot_caller);
    }
    assert_eq!((stage.history.runs.len(), crowded), (MAX_CALLERS, 1000 - MAX_CALLERS));
    assert!(stage.history.runs.iter().all(|run| run.caller.credential >= 992));
}

#[test]
fn a_body_that_did_not_come_by_is_known_by_the_next() {
    let mut stage = HistoryStage::default();
    let caller = Caller { credential: 1, withheld_query: 0 };
    let span = StepSpan { sent: stage.next(), done: stage.next(), purges: 0 };
    stage.history.store(Some(Stored::new(caller, None, span)));
    stage.begin(caller);
    assert_eq!(stage.end(caller, 1), ".");
    let write = (stage.next(), stage.next());
    stage.writes.push(write);
    stage.begin(caller);
    assert_eq!(stage.end(caller, 2), "c1");
}

#[test]
fn a_refusal_is_put_down_to_the_scope_where_it_says_so() {
    let [alice, bob] = [1, 2].map(|credential| Caller { credential, withheld_query: 0 });
    let mut stage = HistoryStage::default();
    assert!(!stage.history.is_refusal_of_another(bob, true), "nothing is stored");
    stage.begin(alice);
    stage.end(alice, 1);
    for is_certain in [false, true] {
        assert!(!stage.history.is_refusal_of_another(alice, is_certain), "it was her own");
        assert!(stage.history.is_refusal_of_another(bob, is_certain));
    }
    stage.begin(bob);
    stage.end(bob, 1);
    assert!(!stage.history.is_refusal_of_another(bob, false), "it may be gone by now");
    assert!(stage.history.is_refusal_of_another(bob, true));
}

#[test]
fn a_key_takes_little_memory() {
    assert!(size_of::<History>() <= 320, "{}", size_of::<History>());
}
