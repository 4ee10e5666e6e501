//! `/mode`: lists, sets and ends switches.

use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::response::ApiError;
use super::state::AdminState;
use crate::clock::Wall;
use crate::policy::explain::ExplainLine;
use crate::policy::mode_switch::{
    DEFAULT_SWITCH_TIME, MAX_SWITCH_TIME, MAX_SWITCHES, ModeSwitch, SwitchMode, SwitchTarget,
};
use crate::policy::route::{Route, RouteMode};
use crate::proxy::mode_switches::{PeersTold, SwitchRefused};
use crate::telemetry::events::truncate;
use crate::units::{parse_duration, show_duration};

/// A valid body, for hints.
const FORM: &str = "{\"mode\":\"off\",\"route\":\"/path\",\"for\":\"1h\"}; the mode is off, shadow \
                    or on, and without a route all of them are meant";

/// The body of `POST /mode`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModeRequest {
    mode: String,
    #[serde(default)]
    route: Option<String>,
    #[serde(default, rename = "for")]
    time: Option<String>,
}

/// What a valid request asks for.
#[derive(Debug, PartialEq, Eq)]
enum ModeOrder {
    Set(SwitchTarget, SwitchMode, Duration),
    End(SwitchTarget),
}

impl ModeRequest {
    fn read(&self) -> Result<ModeOrder, ApiError> {
        let target = match self.route.as_deref() {
            None => SwitchTarget::All,
            Some(path) if path.starts_with('/') => SwitchTarget::from_name(path),
            Some(_) => {
                let why = "`route` must be the path of a route as proxy.toml has it";
                return Err(ApiError::bad_request(why, FORM));
            }
        };
        if self.mode == RouteMode::On.as_str() {
            return match self.time {
                None => Ok(ModeOrder::End(target)),
                Some(_) => Err(ApiError::bad_request(
                    "`on` ends switches, at once and for good, so it takes no `for`",
                    "leave out `for`",
                )),
            };
        }
        let Some(mode) = SwitchMode::from_word(&self.mode) else {
            let why = format!("{:?} is not a mode", truncate(&self.mode));
            return Err(ApiError::bad_request(why, FORM));
        };
        let time = match self.time.as_deref() {
            None => DEFAULT_SWITCH_TIME,
            Some(text) => parse_duration(text).map_err(|error| {
                let why = format!("`for`: {}", truncate(error.what()));
                ApiError::bad_request(why, truncate(error.hint()))
            })?,
        };
        if time.is_zero() || time > MAX_SWITCH_TIME {
            let longest = show_duration(MAX_SWITCH_TIME);
            let why = format!("`for` must be longer than zero and at most {longest}");
            return Err(ApiError::bad_request(why, "for longer, set `mode` in proxy.toml"));
        }
        Ok(ModeOrder::Set(target, mode, time))
    }
}

impl AdminState {
    /// The switches that hold, and the limits.
    pub(super) fn modes(&self) -> Value {
        json!({
            "switches": self.switches(),
            "default_s": DEFAULT_SWITCH_TIME.as_secs(),
            "longest_s": MAX_SWITCH_TIME.as_secs(),
            "most": MAX_SWITCHES,
        })
    }

    /// The switches that hold.
    pub(super) fn switches(&self) -> Vec<Value> {
        let now = self.proxy.clock.wall();
        self.proxy.switches.list().iter().map(|switch| shown(switch, now)).collect()
    }

    /// The switch that decides for a route, if there is one.
    pub(super) fn switch_of(&self, route: &Route) -> Option<Value> {
        let now = self.proxy.clock.wall();
        self.proxy.switches.deciding(route).map(|switch| shown(&switch, now))
    }

    /// Sets a switch, or ends some.
    pub(super) async fn order_mode(&self, request: &ModeRequest) -> Result<Value, ApiError> {
        let (ended, shared) = match request.read()? {
            ModeOrder::Set(target, mode, time) => {
                let set = self.proxy.switches.set(target, mode, time).await;
                let (_, shared) = set.map_err(|refused| refusal(request, refused))?;
                (0, shared)
            }
            ModeOrder::End(target) => {
                let ended = self.proxy.switches.end(&target).await;
                let (ended, shared) = ended.map_err(|refused| refusal(request, refused))?;
                (ended.len(), shared)
            }
        };
        Ok(self.done(request, ended, shared))
    }

    fn done(&self, request: &ModeRequest, ended: usize, shared: PeersTold) -> Value {
        json!({
            "mode": request.mode,
            "route": request.route,
            "ended": ended,
            "shared": shared.is_ok(),
            "why": shared.err(),
            "switches": self.switches(),
        })
    }

    fn date_of(&self, at: Wall) -> String {
        let date = self.proxy.clock.date_of(at);
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(date.seconds()))
    }

    /// What `explain` says of the switch that decides for a route.
    pub(super) fn explain_switch(&self, route: &Route) -> Option<ExplainLine> {
        let switch = self.proxy.switches.deciding(route)?;
        let now = self.proxy.clock.wall();
        let left = Duration::from_secs(switch.until.since(now).as_secs().max(1));
        let which = if switch.target == SwitchTarget::All { "all routes are" } else { "it is" };
        let how = match switch.mode {
            SwitchMode::Off => "switched off",
            SwitchMode::Shadow => "switched to shadow",
        };
        let (until, by) = (self.date_of(switch.until), switch.by.as_str());
        let value = format!("{which} {how} until {until} ({} left), by {by}", show_duration(left));
        Some(ExplainLine { name: "switch".to_owned(), value })
    }
}

fn refusal(request: &ModeRequest, refused: SwitchRefused) -> ApiError {
    match refused {
        SwitchRefused::UnknownRoute(near) => {
            let path = truncate(request.route.as_deref().unwrap_or_default());
            let hint = near.map_or_else(
                || "write the path as it is in proxy.toml; `GET /routes` lists them".to_owned(),
                |near| format!("did you mean {near}?"),
            );
            // No 404: that would say that there is no `/mode`.
            ApiError::bad_request(format!("no route has the path {path}"), hint)
        }
        SwitchRefused::TooMany => {
            ApiError::new(StatusCode::CONFLICT, format!("{MAX_SWITCHES} switches hold already"))
                .hint("end some with mode `on`, or switch all routes with one")
        }
    }
}

fn shown(switch: &ModeSwitch, now: Wall) -> Value {
    json!({
        "route": switch.target.route(),
        "mode": switch.mode.as_str(),
        "by": switch.by.as_str(),
        "ends_ms": switch.until.0,
        "left_s": switch.until.since(now).as_secs_f64(),
        "shared": switch.shared,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ModeOrder, String> {
        let request: ModeRequest = serde_json::from_str(json).map_err(|error| error.to_string())?;
        request.read().map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn a_switch_has_a_target_a_mode_and_an_end() {
        let all = SwitchTarget::All;
        let one = SwitchTarget::from_name("/a/{id}");
        let hour = Duration::from_hours(1);
        let rows = [
            (r#"{"mode":"off"}"#, ModeOrder::Set(all.clone(), SwitchMode::Off, hour)),
            (
                r#"{"mode":"shadow","route":"/a/{id}","for":"1h30m"}"#,
                ModeOrder::Set(one.clone(), SwitchMode::Shadow, hour.mul_f64(1.5)),
            ),
            (
                r#"{"mode":"off","route":null,"for":"24h"}"#,
                ModeOrder::Set(all.clone(), SwitchMode::Off, MAX_SWITCH_TIME),
            ),
            (r#"{"mode":"on"}"#, ModeOrder::End(all)),
            (r#"{"mode":"on","route":"/a/{id}"}"#, ModeOrder::End(one)),
        ];
        for (json, order) in rows {
            assert_eq!(read(json), Ok(order), "{json}");
        }
    }

    #[test]
    fn what_is_no_switch_is_refused_with_a_reason() {
        for (json, why) in [
            ("{}", "missing field `mode`"),
            (r#"{"mode":"of"}"#, "is not a mode"),
            (r#"{"mode":"ON"}"#, "is not a mode"),
            (r#"{"mode":"off","rout":"/a"}"#, "unknown field"),
            (r#"{"mode":"off","route":""}"#, "must be the path"),
            (r#"{"mode":"off","route":"*"}"#, "must be the path"),
            (r#"{"mode":"off","for":"5"}"#, "has no unit"),
            (r#"{"mode":"off","for":"0s"}"#, "at most 1d"),
            (r#"{"mode":"off","for":"24h1ms"}"#, "at most 1d"),
            (r#"{"mode":"on","for":"1h"}"#, "takes no `for`"),
        ] {
            let refused = read(json).expect_err(json);
            assert!(refused.contains(why), "{json}: {refused}");
        }
        let long = format!(r#"{{"mode":"{}"}}"#, "x".repeat(9_000));
        assert!(read(&long).expect_err("no mode").len() < 2_000, "strangers' text is cut");
    }
}
