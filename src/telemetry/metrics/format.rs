//! Chooses the format of a scrape: Prometheus text, unless the scraper prefers `OpenMetrics`.

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsFormat {
    /// Prometheus text 0.0.4, which every consumer of metrics supports.
    Text,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// The media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The format for a request with this `Accept` (RFC 9110 12.5.1).
    ///
    /// `OpenMetrics` is chosen only if it is named, in a supported version, with at least the
    /// weight of text. A wildcard, as curl and browsers send it, gets text. So does a client that
    /// accepts neither, because a readable page is more useful than a 406.
    #[must_use]
    pub fn negotiate(accept: Option<&str>) -> Self {
        let (mut open, mut text) = (0.0_f32, [None::<f32>; 3]);
        for member in accept.unwrap_or_default().split(',') {
            let mut parts = member.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut version) = (Some(1.0), None);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => {
                        weight =
                            value.trim().parse().ok().filter(|weight| (0.0..=1.0).contains(weight));
                    }
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            let Some(weight) = weight else { continue };
            // Ordered from the most specific range to the least. The most specific one present
            // decides.
            let precision = match (range.as_str(), version) {
                ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => {
                    open = open.max(weight);
                    continue;
                }
                ("text/plain", None | Some("0.0.4")) => 0,
                ("text/*", _) => 1,
                ("*/*", _) => 2,
                _ => continue,
            };
            text[precision] = Some(text[precision].map_or(weight, |other| other.max(weight)));
        }
        let text = text.into_iter().flatten().next().unwrap_or(0.0);
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_default() {
        for accept in [
            None,
            Some(""),
            Some("*/*"),
            Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            Some("application/*"),
            Some("application/json"),
            Some("text/plain;version=0.0.4"),
            Some("application/openmetrics-text;q=0"),
            Some("application/openmetrics-text;version=2.0.0"),
            Some("application/openmetrics-text;q=2"),
            Some("application/openmetrics-text;q=nan"),
            Some("application/openmetrics-text;q=0.5, text/plain"),
            Some("application/openmetrics-text;q=0.1, */*;q=0.2"),
            Some("application/openmetrics-text-2"),
        ] {
            assert_eq!(MetricsFormat::negotiate(accept), MetricsFormat::Text, "{accept:?}");
        }
    }

    #[test]
    fn open_metrics_is_chosen_if_it_is_named_with_at_least_the_weight_of_text() {
        for accept in [
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8",
            "application/openmetrics-text;version=\"0.0.1\"",
            "application/openmetrics-text, */*",
            "text/plain;q=0.3, application/openmetrics-text; q=0.300",
            // An unsupported version of text does not count as accepting text.
            "text/plain;version=1.0.0, application/openmetrics-text;q=0.4",
            // The most specific range decides.
            "text/plain;q=0.1, */*;q=0.9, application/openmetrics-text;q=0.5",
            // Prometheus 2 and 3.
            "application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,\
            text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,\
            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
            text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
        ] {
            assert_eq!(
                MetricsFormat::negotiate(Some(accept)),
                MetricsFormat::OpenMetrics,
                "{accept}"
            );
        }
    }
}
