"""The operations dashboard's lower half: upstreams, replicas, vLLM, the machine."""

from __future__ import annotations

from infra.grafana.panels import Panel, Query, Row

SERVERS = (
    Row("Models", (
        Panel("Calls under way and in the queue", (
            Query("sum by (upstream) (pawl_upstream_in_flight)", "{{upstream}} under way"),
            Query("sum by (upstream) (pawl_upstream_waiting)", "{{upstream}} waiting"),
        )),
        Panel("Replicas that answer", (
            Query("max by (replica) (pawl_replica_up)", "{{replica}}"),
        ), kind="stat", below=1),
        Panel("Adapters ready, of those wanted", (
            Query("count by (replica) (pawl_adapter_ready == 1) or max by (replica) (pawl_replica_up) * 0",
                  "{{replica}}"),
            Query("count(count by (adapter) (pawl_adapter_wanted))", "wanted"),
        )),
        Panel("vLLM: running and queued", (
            Query("sum by (instance) (vllm:num_requests_running)", "{{instance}} running"),
            Query("sum by (instance) (vllm:num_requests_waiting)", "{{instance}} queued"),
        )),
        Panel("vLLM: cache in use", (
            Query("max by (instance) (vllm:kv_cache_usage_perc)", "{{instance}}"),
        ), "percentunit", above=0.95),
        Panel("vLLM: tokens a second", (
            Query("sum by (instance) (rate(vllm:generation_tokens_total[5m]))", "{{instance}} generated"),
            Query("sum by (instance) (rate(vllm:prompt_tokens_total[5m]))", "{{instance}} read"),
        )),
        Panel("vLLM: p95 of the first token", (
            Query("histogram_quantile(0.95, sum by (instance, le) "
                  "(rate(vllm:time_to_first_token_seconds_bucket[10m])))", "{{instance}}"),
        ), "s"),
        Panel("GPU utilisation", (
            Query("max by (instance, gpu) (DCGM_FI_DEV_GPU_UTIL)", "{{instance}} {{gpu}}"),
        ), "percent", about="Needs NVIDIA's DCGM exporter as a scrape target."),
        Panel("Cold start", (
            Query("max by (arm) (pawl_arm_first_call_seconds)", "{{arm}}: first call"),
            Query("max by (instance) (pawl_gateway_start_seconds)", "{{instance}}: gateway"),
        ), "s"),
    )),
    Row("The record", (
        Panel("Lake lag", (
            Query("max by (instance) (pawl_lake_lag_seconds)", "{{instance}}"),
        ), "dtdurations", above=10800),
        Panel("Journal not in the lake", (Query("max by (instance) (pawl_journal_bytes)", "{{instance}}"),), "bytes"),
        Panel("Disk free", (
            Query("min by (instance) (pawl_disk_free_bytes / pawl_disk_size_bytes)", "{{instance}}"),
        ), "percentunit", below=0.05),
        Panel("Gateway's memory", (
            Query('max by (instance) (process_resident_memory_bytes{job="pawl-gateway"})', "{{instance}}"),
        ), "bytes"),
        Panel("Gateways that answer", (Query('up{job="pawl-gateway"}', "{{instance}}"),), kind="stat", below=1),
        Panel("Age of the loop's figures", (
            Query("time() - max by (instance) (pawl_loop_looked_time_seconds)", "{{instance}}"),
        ), "s", above=60),
    )),
)  # fmt: skip
