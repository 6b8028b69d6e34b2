#!/bin/bash
# The databases of MLflow (and its accounts) and Prefect, each owned by a role of its own. Runs once, on an empty volume.
set -euo pipefail
psql --set=ON_ERROR_STOP=1 --set=mlflow="$MLFLOW_PASSWORD" --set=prefect="$PREFECT_PASSWORD" --username=postgres <<'SQL'
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE ROLE prefect LOGIN PASSWORD :'prefect';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_accounts OWNER mlflow;
CREATE DATABASE prefect OWNER prefect;
REVOKE CONNECT ON DATABASE mlflow, mlflow_accounts, prefect FROM PUBLIC;
SQL
