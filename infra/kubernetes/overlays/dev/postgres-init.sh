#!/bin/bash
# The databases of MLflow (and its accounts), Prefect and Pawl, each owned by a role of its own; gateways and flows get
# what `pawl database grants` gives them. Runs once, on an empty volume.
set -euo pipefail
psql --set=ON_ERROR_STOP=1 --set=mlflow="$MLFLOW_PASSWORD" --set=prefect="$PREFECT_PASSWORD" --set=pawl="$PAWL_PASSWORD" \
    --set=gateway="$PAWL_GATEWAY_PASSWORD" --set=flow="$PAWL_FLOW_PASSWORD" --username=postgres <<'SQL'
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE ROLE prefect LOGIN PASSWORD :'prefect';
CREATE ROLE pawl LOGIN PASSWORD :'pawl';
CREATE ROLE pawl_gateway LOGIN PASSWORD :'gateway';
CREATE ROLE pawl_flow LOGIN PASSWORD :'flow';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_accounts OWNER mlflow;
CREATE DATABASE prefect OWNER prefect;
CREATE DATABASE pawl OWNER pawl;
REVOKE CONNECT ON DATABASE mlflow, mlflow_accounts, prefect, pawl FROM PUBLIC;
GRANT CONNECT ON DATABASE pawl TO pawl_gateway, pawl_flow;
SQL
