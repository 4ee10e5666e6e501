//! Chooses the format of a scrape: Prometheus text, unless the scraper prefers `OpenMetrics` or
//! protobuf.

/// How metrics are written as text.
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
}

/// The format of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrapeFormat {
    /// Text of one of the two kinds.
    Text(MetricsFormat),
    /// Messages `io.prometheus.client.MetricFamily`, each after its length: the form that native
    /// histograms need.
    Protobuf,
}

/// The most media ranges of an `Accept` that are read. Prometheus sends six.
pub const MAX_ACCEPT_RANGES: usize = 32;

/// The longest `Accept` that is read, in bytes. A longer one counts as none.
pub const MAX_ACCEPT: usize = 2048;

/// What a media range of `Accept` names.
enum ScrapeRange {
    Protobuf,
    OpenMetrics,
    /// Text, by how precisely it is named: 0 is the most precise.
    Text(usize),
}

impl ScrapeFormat {
    /// The media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text(format) => format.content_type(),
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited"
            }
        }
    }

    /// The format for a request with this `Accept` (RFC 9110 12.5.1).
    ///
    /// Protobuf and `OpenMetrics` are chosen only if they are named, in a supported version, with
    /// at least the weight of each other one; of two with the same weight, the one that tells more.
    /// A wildcard, as curl and browsers send it, gets text. So does a client that accepts none of
    /// them, because a readable page is more useful than a 406; and one whose `Accept` is longer
    /// than [`MAX_ACCEPT`].
    #[must_use]
    pub fn negotiate(accept: Option<&str>) -> Self {
        let accept = accept.filter(|accept| accept.len() <= MAX_ACCEPT).unwrap_or_default();
        let (mut protobuf, mut open, mut text) = (0.0_f32, 0.0_f32, [None::<f32>; 3]);
        for (range, weight) in
            accept.split(',').take(MAX_ACCEPT_RANGES).filter_map(ScrapeRange::read)
        {
            match range {
                ScrapeRange::Protobuf => protobuf = protobuf.max(weight),
                ScrapeRange::OpenMetrics => open = open.max(weight),
                // The most precise range that is there decides.
                ScrapeRange::Text(precision) => {
                    text[precision] =
                        Some(text[precision].map_or(weight, |other| other.max(weight)));
                }
            }
        }
        let text = text.into_iter().flatten().next().unwrap_or(0.0);
        if protobuf > 0.0 && protobuf >= open && protobuf >= text {
            Self::Protobuf
        } else if open > 0.0 && open >= text {
            Self::Text(MetricsFormat::OpenMetrics)
        } else {
            Self::Text(MetricsFormat::Text)
        }
    }
}

impl ScrapeRange {
    /// A media range and its weight. `None` if it names no format of ours, or no valid weight.
    fn read(member: &str) -> Option<(Self, f32)> {
        let mut parts = member.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut weight, mut version, mut proto, mut encoding) = (Some(1.0), None, None, None);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim();
            let unquoted = Some(value.trim_matches('"'));
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => weight = value.parse().ok().filter(|weight| (0.0..=1.0).contains(weight)),
                "version" => version = unquoted,
                "proto" => proto = unquoted,
                "encoding" => encoding = unquoted,
                _ => {}
            }
        }
        let named = match (range.as_str(), version) {
            ("application/vnd.google.protobuf", _)
                if proto == Some("io.prometheus.client.MetricFamily")
                    && encoding == Some("delimited") =>
            {
                Self::Protobuf
            }
            ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => Self::OpenMetrics,
            ("text/plain", None | Some("0.0.4")) => Self::Text(0),
            ("text/*", _) => Self::Text(1),
            ("*/*", _) => Self::Text(2),
            _ => return None,
        };
        Some((named, weight?))
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
            let chosen = ScrapeFormat::negotiate(accept);
            assert_eq!(chosen, ScrapeFormat::Text(MetricsFormat::Text), "{accept:?}");
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
            let chosen = ScrapeFormat::negotiate(Some(accept));
            assert_eq!(chosen, ScrapeFormat::Text(MetricsFormat::OpenMetrics), "{accept}");
        }
    }

    #[test]
    fn protobuf_is_chosen_if_it_is_named_whole_with_at_least_the_weight_of_the_others() {
        let family = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily";
        for accept in [
            format!("{family};encoding=delimited"),
            format!("Application/vnd.Google.Protobuf; Encoding=\"delimited\" ;{}", &family[32..]),
            format!("{family};encoding=delimited, application/openmetrics-text, text/plain, */*"),
            // Prometheus 2.42, 2.50 and 3, with native histograms on.
            format!(
                "{family};encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,\
                 application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
            ),
            format!(
                "{family};encoding=delimited;q=0.6,\
                 application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,\
                 */*;q=0.2"
            ),
            format!(
                "{family};encoding=delimited;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,*/*;q=0.1"
            ),
        ] {
            let chosen = ScrapeFormat::negotiate(Some(&accept));
            assert_eq!(chosen, ScrapeFormat::Protobuf, "{accept}");
        }
        for accept in [
            family.to_owned(),
            "application/vnd.google.protobuf".to_owned(),
            format!("{family};encoding=text"),
            format!("{family};encoding=compact-text"),
            format!("{family};encoding=delimited;q=0"),
            format!("{family};encoding=delimited;q=-1"),
            format!("{family};encoding=delimited;q=0.4, text/plain;q=0.5"),
            "application/vnd.google.protobuf;proto=other.Message;encoding=delimited".to_owned(),
            "application/*".to_owned(),
        ] {
            let chosen = ScrapeFormat::negotiate(Some(&accept));
            assert_eq!(chosen, ScrapeFormat::Text(MetricsFormat::Text), "{accept}");
        }
    }

    #[test]
    fn an_accept_without_end_is_not_read_to_its_end() {
        let asked = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                     encoding=delimited";
        let text = ScrapeFormat::Text(MetricsFormat::Text);
        let after = |ranges: usize| format!("{}{asked}", "a/b,".repeat(ranges));
        let negotiate = |accept: &str| ScrapeFormat::negotiate(Some(accept));
        assert_eq!(negotiate(&after(MAX_ACCEPT_RANGES - 1)), ScrapeFormat::Protobuf);
        assert_eq!(negotiate(&after(MAX_ACCEPT_RANGES)), text);
        let padded = |length: usize| format!("{asked};x={}", "y".repeat(length - asked.len() - 3));
        assert_eq!(negotiate(&padded(MAX_ACCEPT)), ScrapeFormat::Protobuf);
        assert_eq!(negotiate(&padded(MAX_ACCEPT + 1)), text);
        for hostile in [";;;;,,,,====", "\u{202e}/\u{0};q=1e309", "text/plain;q=0.0000001, ;q="] {
            assert_eq!(negotiate(hostile), text, "{hostile}");
        }
    }
}
