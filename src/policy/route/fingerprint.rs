//! The fingerprint of a route's policy, which each of its keys begins with.

use std::hash::{Hash as _, Hasher as _};

use crate::policy::folder::FolderTags;
use crate::policy::request_match::RequestMatch;
use crate::policy::route::headers::KnownRoles;
use crate::policy::route::{ResponseRules, RouteSpec};
use crate::policy::signed_in::SignedIn;

impl RouteSpec {
    /// Hashes every setting that decides which responses share a key, what is stored of them,
    /// under which tags and for how long. So after a reload, nothing is served that other rules
    /// have stored. The hash keys are fixed, so that sidecars with the same file agree.
    pub(super) fn fingerprint(
        &self,
        guest_of: Option<&SignedIn>,
        known: &KnownRoles,
        response_rules: &ResponseRules,
    ) -> [u8; 8] {
        let mut hasher = hasher();
        let KnownRoles { fronts, credential, .. } = known;
        // Destructured exhaustively, so that a new setting cannot be forgotten here.
        let Self {
            place: _,
            app: _,
            defaults: _,
            pattern,
            methods,
            conditions: _,
            scope,
            key,
            query,
            strip_set_cookie,
            drop_headers,
            pass_headers,
            unknown_headers,
            tags,
            ttl,
            origin,
            stale_while_revalidate,
            stale_if_error,
            languages,
            vary_cookie,
            case,
            // These are among what most routes do not have.
            graphql: _,
            expires_at: _,
            signed_in: _,
            compress: _,
            // These decide when the origin is contacted, who is served and what clients are told.
            jitter: _,
            mode: _,
            share: _,
            audit: _,
            early_refresh: _,
            collapse: _,
            admit: _,
            admit_for: _,
            revalidate_after: _,
            client_cache_control: _,
            encoded_slash: _,
            browser: _,
        } = self;
        let ResponseRules { targeted, response_tags, folders } = response_rules;
        let rules = format!(
            "{:?}",
            (
                key,
                query,
                drop_headers,
                pass_headers,
                unknown_headers,
                credential,
                targeted,
                response_tags,
                (strip_set_cookie, languages, vary_cookie, case, fronts, methods),
            )
        );
        let times = format!("{:?}", (ttl, origin, stale_while_revalidate, stale_if_error));
        (pattern.as_str(), scope, rules, times).hash(&mut hasher);
        tags.iter().for_each(|tag| tag.as_str().hash(&mut hasher));
        for (is_there, shown) in self.rare_parts(guest_of, &folders.of_pattern(pattern)) {
            hash_if(is_there, &shown, &mut hasher);
        }
        hasher.finish().to_be_bytes()
    }

    /// What most routes do not have, which adds nothing to their fingerprints: whether it is there,
    /// and what it is. What codes nothing has no entry that says how it varies.
    fn rare_parts(&self, guest_of: Option<&SignedIn>, folders: &FolderTags) -> [(bool, String); 7] {
        let Self { graphql, expires_at, signed_in, app, .. } = self;
        let conditions = shown_conditions(&self.conditions);
        [
            (!folders.is_empty(), format!("{folders:?}")),
            (expires_at.is_some(), format!("{expires_at:?}")),
            (!conditions.is_empty(), conditions),
            (*graphql, "graphql".to_owned()),
            (app.name.is_some(), format!("app {:?}", app.name)),
            (self.compress().is_some(), "compress".to_owned()),
            (signed_in.is_some() || guest_of.is_some(), format!("{:?}", (signed_in, guest_of))),
        ]
    }
}

/// Conditions, but for what they are called; empty without any.
fn shown_conditions(conditions: &RequestMatch) -> String {
    if conditions.is_empty() {
        return String::new();
    }
    format!("{:?}", conditions.conditions().collect::<Vec<_>>())
}

fn hash_if(is_there: bool, shown: &str, hasher: &mut impl std::hash::Hasher) {
    if is_there {
        shown.hash(hasher);
    }
}

#[allow(
    deprecated,
    reason = "the std SipHash with fixed keys is stable across processes, which DefaultHasher does \
        not promise"
)]
fn hasher() -> std::hash::SipHasher {
    std::hash::SipHasher::new_with_keys(0x5349_4445, 0x4341_4348)
}
