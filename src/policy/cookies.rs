//! Cookies that change no response: those of analytics, and those that the operator names.

use std::fmt;

use crate::policy::glob::{Glob, any_matches};

/// The name of the built-in set in `ignore_cookies`.
const ANALYTICS_SET: &str = "@analytics";

/// The cookies of analytics, which scripts in pages set and which no app reads. They are as precise
/// as their makers allow: an app may call its own cookie `_gallery_user`.
pub const ANALYTICS: &[&str] = &[
    // Google Analytics and Ads; `__utm` is the older Analytics.
    "_ga",
    "_ga_*",
    "_gid",
    "_gat",
    "_gat_*",
    "_gac_*",
    "_gcl_*",
    "_dc_gtm_*",
    "__utma",
    "__utmb",
    "__utmc",
    "__utmt*",
    "__utmv",
    "__utmx",
    "__utmz",
    "__gads",
    "__gpi",
    "__gpi_optout",
    // Meta.
    "_fbp",
    "_fbc",
    // Hotjar.
    "_hjid",
    "_hjptid",
    "_hjSession*",
    "_hjFirstSeen",
    "_hjIncluded*",
    "_hjAbsolute*",
    "_hjTLDTest",
    "_hjLocalStorageTest",
    "_hjCookieTest",
    "_hjUserAttributes*",
    "_hjCached*",
    "_hjClosed*",
    "_hjDone*",
    "_hjMinimized*",
    "_hjShown*",
    "_hjHas*",
    "_hjRecording*",
    // Matomo and Piwik.
    "_pk_id*",
    "_pk_ses*",
    "_pk_ref*",
    "_pk_cvar*",
    "_pk_hsr*",
    "_pk_testcookie*",
    // Clarity and Bing.
    "_clck",
    "_clsk",
    "_uetsid*",
    "_uetvid*",
    // TikTok, Pinterest, Snapchat, Reddit, LinkedIn, X.
    "_tt_enable_cookie",
    "_ttp",
    "_pin_unauth",
    "_derived_epik",
    "_epik",
    "_scid",
    "_scid_r",
    "_sctr",
    "_rdt_uuid",
    "li_fat_id",
    "_twclid",
    // HubSpot and Marketo.
    "__hstc",
    "__hssc",
    "__hssrc",
    "hubspotutk",
    "_mkto_trk",
    // Segment, Amplitude, Mixpanel, PostHog, Heap, Snowplow, FullStory.
    "ajs_anonymous_id",
    "ajs_user_id",
    "ajs_group_id",
    "amplitude_id*",
    "AMP_*",
    "mp_*_mixpanel",
    "ph_*_posthog",
    "_hp2_*",
    "_sp_id.*",
    "_sp_ses.*",
    "fs_uid",
    // Yandex, Quantcast, Parse.ly, Chartbeat, Comscore.
    "_ym_*",
    "__qca",
    "_parsely_visitor",
    "_cb",
    "_cb_ls",
    "_cb_svref",
    "_chartbeat*",
    "_scor_uid",
];

/// The cookies in which banners keep what the visitor has consented to.
pub const CONSENT: &[&str] = &[
    "CookieConsent*",
    "cookieconsent*",
    "cookie_consent*",
    "cookie-consent*",
    "OptanonConsent",
    "OptanonAlertBoxClosed",
    "euconsent*",
    "eupubconsent*",
    "didomi_token",
    "cookieyes-consent",
    "cky-consent",
    "cookielawinfo-*",
    "viewed_cookie_policy",
    "cookie_notice_accepted",
    "cmplz_*",
    "tarteaucitron",
    "axeptio_*",
    "borlabs-cookie",
    "cc_cookie",
    "moove_gdpr_popup",
    "_iub_cs-*",
    "usprivacy",
    "notice_gdpr_prefs",
    "notice_behavior",
    "klaro",
    "mtm_consent*",
];

/// The cookies of tests that show different pages to different visitors.
pub const AB_TESTS: &[&str] = &[
    "optimizely*",
    "_vwo_*",
    "_vis_opt_*",
    "_gaexp*",
    "_conv_*",
    "mbox*",
    "at_check",
    "kameleoon*",
    "ABTasty*",
    "_dyid*",
    "_dycnst",
    "_dyjsession",
    "_dy_ses_load_seq",
    "AMP_EXP*",
];

/// The end of the name under which Rails keeps an app's session, `_NAME_session`. No set takes such
/// a cookie, whatever the app's name is.
const SESSION_SUFFIX: &[u8] = b"_session";

/// The sets that `ignore_cookies` can name.
pub const COOKIE_SETS: [(&str, &[&str]); 3] =
    [(ANALYTICS_SET, ANALYTICS), ("@consent", CONSENT), ("@ab", AB_TESTS)];

/// The cookies that are withheld on fills and count for nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct IgnoredCookies {
    /// Those of sets.
    sets: Box<[Glob]>,
    /// Those that the operator names.
    names: Box<[Glob]>,
    /// Those that are not ignored, whatever else says so.
    exempt: Box<[Glob]>,
    /// The first bytes of all that are ignored, as a set: most cookies are not.
    first_bytes: [u64; 4],
}

/// An entry of `ignore_cookies` that begins with `@` and names no set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCookieSet;

impl IgnoredCookies {
    /// The built-in set, changed by entries of `ignore_cookies`: globs, names of sets, and either
    /// of them after `!`, which takes names out again. The order does not matter. The cookies that
    /// identify a caller are never ignored.
    ///
    /// # Errors
    /// Where an entry names a set that does not exist.
    pub fn new<'a>(
        entries: impl IntoIterator<Item = &'a str>,
        credential: &[Glob],
    ) -> Result<Self, UnknownCookieSet> {
        let mut sets = globs(ANALYTICS);
        let (mut names, mut exempt) = (Vec::new(), credential.to_vec());
        for entry in entries {
            let (is_exempt, entry) =
                entry.strip_prefix('!').map_or((false, entry), |entry| (true, entry));
            let (list, added) = if entry.starts_with('@') {
                let set = COOKIE_SETS.iter().find(|(name, _)| *name == entry);
                let (_, set) = set.ok_or(UnknownCookieSet)?;
                (&mut sets, globs(set))
            } else {
                (&mut names, vec![Glob::new(entry)])
            };
            let list = if is_exempt { &mut exempt } else { list };
            list.extend(added);
        }
        for list in [&mut sets, &mut names, &mut exempt] {
            list.sort_by(|one, two| one.as_str().cmp(two.as_str()));
            list.dedup();
        }
        let mut first_bytes = [0; 4];
        for glob in sets.iter().chain(&names) {
            match glob.first_byte() {
                Some(byte) => first_bytes[usize::from(byte >> 6)] |= 1 << (byte & 63),
                None => first_bytes = [u64::MAX; 4],
            }
        }
        Ok(Self { sets: sets.into(), names: names.into(), exempt: exempt.into(), first_bytes })
    }

    /// Whether a cookie of this name is taken out of what is ignored, whatever else says so.
    #[must_use]
    pub fn exempts(&self, name: &[u8]) -> bool {
        any_matches(&self.exempt, name)
    }

    /// Whether a cookie of this name is ignored.
    #[must_use]
    pub fn ignores(&self, name: &[u8]) -> bool {
        let Some(first) = name.first() else { return false };
        self.first_bytes[usize::from(first >> 6)] & (1 << (first & 63)) != 0
            && (any_matches(&self.names, name)
                || (any_matches(&self.sets, name) && !name.ends_with(SESSION_SUFFIX)))
            && !any_matches(&self.exempt, name)
    }

    /// Whether all cookies that `other` ignores are ignored, as far as the patterns tell.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        // Text with stars that a pattern matches stands for names that it matches, too.
        let is_in = |list: &[Glob], glob: &Glob| any_matches(list, glob.as_str().as_bytes());
        other.names.iter().all(|glob| is_in(&self.names, glob))
            && other.sets.iter().all(|glob| is_in(&self.sets, glob) || is_in(&self.names, glob))
            && self.exempt.iter().all(|glob| is_in(&other.exempt, glob))
    }
}

fn globs(set: &[&str]) -> Vec<Glob> {
    set.iter().copied().map(Glob::new).collect()
}

/// The built-in set.
impl Default for IgnoredCookies {
    fn default() -> Self {
        Self::new([], &[]).expect("no entry names a set")
    }
}

/// What it ignores: this text is part of the fingerprint of routes.
impl fmt::Debug for IgnoredCookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IgnoredCookies")
            .field("sets", &self.sets)
            .field("names", &self.names)
            .field("exempt", &self.exempt)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(entries: &[&str], names: &[&'static str]) -> Vec<&'static str> {
        let rule =
            IgnoredCookies::new(entries.iter().copied(), &["sid_ga".into(), "_ga_own".into()])
                .expect("known sets");
        names.iter().copied().filter(|name| rule.ignores(name.as_bytes())).collect()
    }

    #[test]
    fn analytics_alone_are_ignored_unless_the_operator_names_more() {
        let names = ["_ga", "_ga_X1", "_pk_id.1", "OptanonConsent", "optimizelyEndUserId", "theme"];
        assert_eq!(ignored(&[], &names), ["_ga", "_ga_X1", "_pk_id.1"]);
        assert_eq!(ignored(&["@analytics"], &names), ["_ga", "_ga_X1", "_pk_id.1"]);
        assert_eq!(
            ignored(&["@consent", "th*"], &names),
            ["_ga", "_ga_X1", "_pk_id.1", "OptanonConsent", "theme"]
        );
        assert_eq!(ignored(&["@ab"], &names), ["_ga", "_ga_X1", "_pk_id.1", "optimizelyEndUserId"]);
    }

    #[test]
    fn an_exclamation_mark_takes_names_out_in_any_order() {
        let names = ["_ga", "_pk_id.1", "x"];
        for entries in [["!_pk_*", "*"], ["*", "!_pk_*"]] {
            assert_eq!(ignored(&entries, &names), ["_ga", "x"]);
        }
        assert_eq!(ignored(&["!@analytics"], &names), Vec::<&str>::new());
        assert_eq!(ignored(&["_ga_session"], &["_ga_session"]), ["_ga_session"], "by name it is");
    }

    #[test]
    fn what_is_no_longer_ignored_is_found() {
        let rule = |entries: &[&str]| {
            IgnoredCookies::new(entries.iter().copied(), &[]).expect("known sets")
        };
        for (now, before, covers) in [
            (&["a*"][..], &["a", "ab*"][..], true),
            (&["a", "b"], &["b"], true),
            (&["*"], &["@consent", "b"], true),
            (&[], &["!_ga"], true),
            (&["a"], &["a*"], false),
            (&[], &["@consent"], false),
            (&["!_ga"], &[], false),
        ] {
            assert_eq!(rule(now).covers(&rule(before)), covers, "{now:?} after {before:?}");
        }
    }

    #[test]
    fn a_cookie_of_the_credential_is_never_ignored() {
        assert_eq!(ignored(&[], &["_ga_own", "_ga"]), ["_ga"]);
        assert_eq!(ignored(&["*"], &["sid_ga", "other"]), ["other"]);
    }

    #[test]
    fn session_cookies_of_common_frameworks_are_in_no_set() {
        let rule = IgnoredCookies::new(["@consent", "@ab"], &[]).expect("known sets");
        for name in [
            "session",
            "sessionid",
            "csrftoken",
            "messages",
            "_myapp_session",
            "connect.sid",
            "PHPSESSID",
            "JSESSIONID",
            "ASP.NET_SessionId",
            "laravel_session",
            "XSRF-TOKEN",
            "_gitlab_session",
            "_gallery_user",
            "_gallery_session",
            "_ga_session",
            "_hj_session",
            "_pk_session",
            "_cb_session",
            "_gh_sess",
            "_git_session",
            "wordpress_logged_in_0a1b",
            "wp-settings-1",
            "_forum_session",
            "_t",
            "auth",
            "remember_token",
            "__Host-session",
            "__Secure-next-auth.session-token",
            "_csrf",
            "lang",
            "theme",
            "i18n_redirected",
            "frontend",
            "PrestaShop-0a1b",
            "SSESS0a1b",
            "cart",
            "woocommerce_cart_hash",
        ] {
            assert!(!rule.ignores(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn an_unknown_set_is_an_error() {
        assert_eq!(IgnoredCookies::new(["@tracking"], &[]), Err(UnknownCookieSet));
    }

    #[test]
    fn what_is_ignored_is_in_the_text_that_fingerprints_read() {
        let text = |entries: &[&'static str]| {
            format!("{:?}", IgnoredCookies::new(entries.iter().copied(), &[]).expect("known sets"))
        };
        assert_ne!(text(&[]), text(&["x"]));
        assert_ne!(text(&["x"]), text(&["!x"]));
        assert_eq!(text(&[]), text(&["@analytics"]));
    }
}
