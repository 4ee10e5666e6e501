//! What is known of the keys and the cookies of a route.

use crate::policy::route::Route;
use crate::policy::session::SessionFormat;
use crate::policy::varying_keys::VaryingFinding;
use crate::proxy::{ActiveConfig, Resources};

/// How many times rarer than the most frequent one a cookie may be, to be told.
const RARITY: u64 = 50;

/// What is known of the keys of a route.
#[derive(Debug, Default)]
pub(crate) struct KeyEvidence {
    /// The parts of keys that differ each time.
    pub(crate) varying: Vec<VaryingFinding>,
    /// Headers outside of the key that differ each time.
    pub(crate) unkeyed: Vec<Box<str>>,
    /// Headers outside of the key that come in a form for which a field would refuse the request,
    /// and how often.
    pub(crate) refused: Vec<(String, u64)>,
    /// The other parameters of requests, if all are known.
    pub(super) parameters: Option<Vec<Box<str>>>,
    /// The cookies that keep responses from being stored, the most frequent first.
    pub(super) set_cookies: Vec<(String, u64)>,
    /// Those cookies among what differs that the operator wants to count.
    pub(super) exempt: Vec<String>,
    /// Those cookies of all of these that the origin replaces each time.
    pub(super) rolling: Vec<String>,
    /// Those of them whose values look signed, and how.
    pub(super) signed: Vec<(String, SessionFormat)>,
}

impl KeyEvidence {
    /// What is known of this route.
    #[must_use]
    pub(crate) fn new(resources: &Resources, config: &ActiveConfig, route: &Route) -> Self {
        let keys = &config.varying_keys;
        let varying = keys.findings(route.id, resources.route_hits(config, route));
        let mut set_cookies = resources.set_cookies(route);
        let most = set_cookies.first().map_or(0, |(_, count)| *count);
        set_cookies.retain(|(_, count)| count.saturating_mul(RARITY) >= most);
        let names = varying.iter().map(|finding| &*finding.name);
        let names = names.chain(set_cookies.iter().map(|(name, _)| name.as_str()));
        let rolling: Vec<&str> = names.filter(|name| config.rolling_cookies.rolls(name)).collect();
        let signed = rolling
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), config.rolling_cookies.format(name)?)));
        let ignored = &config.rules.credential.ignored_cookies;
        let exempt = varying.iter().filter(|finding| ignored.exempts(finding.name.as_bytes()));
        Self {
            exempt: exempt.map(|finding| finding.name.to_string()).collect(),
            signed: signed.collect(),
            rolling: rolling.into_iter().map(str::to_owned).collect(),
            unkeyed: keys.unkeyed(route.id),
            refused: resources.unkeyable_headers(route),
            parameters: keys.other_parameters(route.id),
            varying,
            set_cookies,
        }
    }
}
