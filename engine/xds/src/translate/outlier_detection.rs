//! envoy.config.cluster.v3.OutlierDetection, its defaults (outlier_detection.proto) filled in.

use super::{Context, api, values::duration};
use corelane_snapshot::OutlierDetection;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(10);
const BASE_EJECTION_TIME: Duration = Duration::from_secs(30);
const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);

pub(super) fn outlier_detection(
    cx: &mut Context<'_>,
    outlier: &api::cluster::OutlierDetection,
) -> Option<OutlierDetection> {
    let base_ejection_time =
        duration(cx, "base_ejection_time", &outlier.base_ejection_time).unwrap_or(BASE_EJECTION_TIME);
    // "If not specified, the default value (300000ms or 300s) or base_ejection_time value is applied, whatever is
    // larger"
    let max_ejection_time = duration(cx, "max_ejection_time", &outlier.max_ejection_time)
        .unwrap_or(MAX_EJECTION_TIME.max(base_ejection_time));
    if max_ejection_time < base_ejection_time {
        cx.error_at("max_ejection_time", "must not be below `base_ejection_time`");
    }
    Some(OutlierDetection {
        consecutive_5xx: outlier.consecutive_5xx.unwrap_or(5),
        enforcing_consecutive_5xx: outlier.enforcing_consecutive_5xx.unwrap_or(100),
        consecutive_gateway_failure: outlier.consecutive_gateway_failure.unwrap_or(5),
        enforcing_consecutive_gateway_failure: outlier.enforcing_consecutive_gateway_failure.unwrap_or(0),
        split_external_local_origin_errors: outlier.split_external_local_origin_errors,
        consecutive_local_origin_failure: outlier.consecutive_local_origin_failure.unwrap_or(5),
        enforcing_consecutive_local_origin_failure: outlier
            .enforcing_consecutive_local_origin_failure
            .unwrap_or(100),
        enforcing_local_origin_success_rate: outlier.enforcing_local_origin_success_rate.unwrap_or(100),
        interval: duration(cx, "interval", &outlier.interval).unwrap_or(INTERVAL),
        base_ejection_time,
        max_ejection_time,
        max_ejection_time_jitter: duration(cx, "max_ejection_time_jitter", &outlier.max_ejection_time_jitter)
            .unwrap_or_default(),
        max_ejection_percent: outlier.max_ejection_percent,
        always_eject_one_host: outlier.always_eject_one_host.unwrap_or(false),
        success_rate_minimum_hosts: outlier.success_rate_minimum_hosts.unwrap_or(5),
        success_rate_request_volume: outlier.success_rate_request_volume.unwrap_or(100),
        success_rate_stdev_factor: outlier.success_rate_stdev_factor.unwrap_or(1900),
        enforcing_success_rate: outlier.enforcing_success_rate.unwrap_or(100),
        failure_percentage_threshold: outlier.failure_percentage_threshold.unwrap_or(85),
        enforcing_failure_percentage: outlier.enforcing_failure_percentage.unwrap_or(0),
        enforcing_failure_percentage_local_origin: outlier
            .enforcing_failure_percentage_local_origin
            .unwrap_or(0),
        failure_percentage_minimum_hosts: outlier.failure_percentage_minimum_hosts.unwrap_or(5),
        failure_percentage_request_volume: outlier.failure_percentage_request_volume.unwrap_or(50),
        successful_active_health_check_uneject_host: outlier
            .successful_active_health_check_uneject_host
            .unwrap_or(true),
    })
}
