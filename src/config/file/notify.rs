//! `[[notify]]`, as people write it.

use crate::config::decode::{Period, Size, TomlString, table};
use crate::config::keywords::NotifyWord;

table! {
    /// Who is told of purges: a CDN in front, so that one purge empties it as well, or anybody who
    /// takes webhooks.
    #[schemars(extend("required" = ["kind"]))]
    NotifySection("a notification", "[[notify]]") {
        /// Who is told: `cloudflare` and `fastly` by their APIs, anybody else by a signed request
        /// (`webhook`).
        kind: NotifyWord,
        /// What it is called in logs, metrics and `/stats`. Without it, by its `kind`.
        #[schemars(extend("pattern" = "^([A-Za-z0-9_.-]{1,64}|.*\\$\\{.*)$"))]
        name: TomlString,
        /// Where the webhook is sent. For `cloudflare` and `fastly`: the base of their API, in
        /// place of `https://api.cloudflare.com/client/v4` and `https://api.fastly.com`.
        #[schemars(extend("examples" = ["https://cdn.example.com/hooks/purge"]))]
        url: TomlString,
        /// The zone. For `cloudflare`.
        #[schemars(extend("examples" = ["${CLOUDFLARE_ZONE}"]))]
        zone: TomlString,
        /// The service. For `fastly`.
        #[schemars(extend("examples" = ["${FASTLY_SERVICE}"]))]
        service: TomlString,
        /// The token of the API. For `cloudflare` and `fastly`.
        #[schemars(extend("examples" = ["${CDN_TOKEN}"]))]
        token: TomlString,
        /// What the requests are signed with: base64 after `whsec_`, as Standard Webhooks have it.
        /// For `webhook`.
        #[schemars(extend("examples" = ["${WEBHOOK_SECRET}"]))]
        secret: TomlString,
        /// Whether tags are purged softly there: what carries them is stale, and may be served
        /// while it is fetched anew. For `fastly`.
        soft: bool = false,
        /// The header in which responses of scope `public` name their tags: "Cache-Tag" for
        /// `cloudflare`, "Surrogate-Key" for `fastly`, and none for `webhook` without it.
        #[schemars(extend("examples" = ["Cache-Tag", "Surrogate-Key"]))]
        header: TomlString,
        /// The longest value of that header, 256B to 16000B. A response with more tags names one
        /// that every purge names as well.
        header_size: Size = "4KiB",
        /// How long purges are gathered to be told together, up to 10s.
        gather: Period = "50ms",
        /// Whether everything is purged there at the start of the sidecar, because purges may have
        /// been lost with the one before.
        at_start: bool = false,
        /// A PEM file of roots to trust in place of the system's; relative to the folder of this
        /// file.
        ca_file: TomlString,
    }
}
