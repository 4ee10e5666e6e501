//! The switches that the sidecars of a namespace share: a hash in Redis, `{ns}:modes`.
//!
//! Times travel as what is left of them, and end by Redis's clock: no clocks of two machines are
//! compared.
//!
//! SECURITY: whoever may write in Redis can set a switch. The worst that it does is that requests
//! go to the origin, for [`MAX_SWITCH_TIME`] at most; no entry is served that would not be served
//! otherwise. The scripts give back [`MAX_SWITCHES`] switches at most (and as many that have
//! ended), with names of [`MAX_SWITCH_NAME`] bytes at most.

use std::time::Duration;

use bytes::Bytes;

use super::RecordStore;
use super::replies::{list_from, unexpected_reply};
use crate::clock::millis;
use crate::coherence::message::Message;
use crate::policy::mode_switch::{
    MAX_SWITCH_TIME, MAX_SWITCHES, SwitchId, SwitchMode, SwitchTarget,
};
use crate::redis::{CallError, ScriptReply};

/// The longest name of a switch in Redis, in bytes.
pub const MAX_SWITCH_NAME: usize = 1024;

/// A switch as it is in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSwitch {
    /// Its id.
    pub id: SwitchId,
    /// The routes that it is for. Other sidecars may have other routes.
    pub target: SwitchTarget,
    /// What it makes of them; `None` for a switch that was ended.
    pub mode: Option<SwitchMode>,
    /// How much of its time is left.
    pub left: Duration,
}

/// What has become of a switch that was sent to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchSent {
    /// It is there.
    Stored,
    /// Another sidecar has ended it.
    Ended,
    /// There is no room for it.
    Full,
}

impl RecordStore {
    /// Sends a switch to Redis, and tells the peers.
    pub async fn keep_switch(
        &self,
        (target, id): (&SwitchTarget, SwitchId),
        mode: SwitchMode,
        left: Duration,
    ) -> Result<SwitchSent, CallError> {
        if target.name().len() > MAX_SWITCH_NAME {
            return Ok(SwitchSent::Full);
        }
        let mut args = self.switch_args();
        args.extend(
            [target.name(), mode.as_str(), &hex(id), &millis(left).to_string()]
                .map(|word| Bytes::copy_from_slice(word.as_bytes())),
        );
        let keys = vec![self.keys.switches.clone()];
        match self.client().run_patiently(&self.scripts.switch_keep, keys, args).await? {
            ScriptReply::One(word) if *word == *b"kept" => Ok(SwitchSent::Stored),
            ScriptReply::One(word) if *word == *b"ended" => Ok(SwitchSent::Ended),
            ScriptReply::One(word) if *word == *b"full" => Ok(SwitchSent::Full),
            _ => Err(unexpected_reply()),
        }
    }

    /// Ends switches in Redis, and tells the peers. Each with what would be left of its time.
    pub async fn end_switches(
        &self,
        ended: &[(SwitchTarget, SwitchId, Duration)],
    ) -> Result<(), CallError> {
        let mut args = self.switch_args();
        for (target, id, left) in ended {
            args.push(Bytes::copy_from_slice(target.name().as_bytes()));
            args.push(hex(*id).into());
            args.push(millis(*left).to_string().into());
        }
        let keys = vec![self.keys.switches.clone()];
        self.client().run_patiently(&self.scripts.switch_end, keys, args).await.map(drop)
    }

    /// Reads the switches, those too that were ended.
    pub async fn switches(&self) -> Result<Vec<SharedSwitch>, CallError> {
        let (keys, args) = (vec![self.keys.switches.clone()], bounds().to_vec());
        let reply = self.client().run_patiently(&self.scripts.switch_read, keys, args).await?;
        Ok(list_from(reply)?.chunks_exact(4).filter_map(switch_from).collect())
    }

    fn switch_args(&self) -> Vec<Bytes> {
        let mut args = self.publish_args(Some(&Message::SwitchesChanged)).to_vec();
        args.extend(bounds());
        args
    }
}

/// What the scripts hold to: the most switches, the longest time in milliseconds, the longest name.
fn bounds() -> [Bytes; 3] {
    let words = [MAX_SWITCHES as u64, millis(MAX_SWITCH_TIME), MAX_SWITCH_NAME as u64];
    words.map(|word| word.to_string().into())
}

fn hex(id: SwitchId) -> String {
    format!("{:016x}", id.0)
}

/// A switch, from the words of the script; `None` if they are none.
fn switch_from(words: &[Bytes]) -> Option<SharedSwitch> {
    let word = |at: usize| std::str::from_utf8(words.get(at)?).ok();
    let mode = match word(1)? {
        "on" => None,
        other => Some(SwitchMode::from_word(other)?),
    };
    Some(SharedSwitch {
        target: SwitchTarget::from_name(word(0)?),
        mode,
        id: SwitchId(u64::from_str_radix(word(2)?, 16).ok()?),
        left: Duration::from_millis(word(3)?.parse().ok()?).min(MAX_SWITCH_TIME),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: [&str; 4]) -> Option<SharedSwitch> {
        switch_from(&words.map(|word| Bytes::copy_from_slice(word.as_bytes())))
    }

    #[test]
    fn whatever_is_read_turns_no_route_on_and_is_bounded() {
        let id = "00000000000000fe";
        let known = read(["/a", "off", id, "500"]).expect("a switch");
        assert_eq!((known.mode, known.id), (Some(SwitchMode::Off), SwitchId(0xfe)));
        assert_eq!(known.left, Duration::from_millis(500));
        assert_eq!(read(["*", "on", id, "5"]).map(|ended| ended.mode), Some(None));
        let far = read(["*", "shadow", id, "99999999999999"]).map(|switch| switch.left);
        assert_eq!(far, Some(MAX_SWITCH_TIME));
        for bad in [
            ["/a", "ON", id, "5"],
            ["/a", "", id, "5"],
            ["/a", "off", "x", "5"],
            ["/a", "off", id, "-5"],
            ["/a", "off", id, "1e3"],
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
