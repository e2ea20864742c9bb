#!/usr/bin/env bash
# Removes the Entra ID application that stands for the server, with all its roles and
# assignments. Tokens that were issued already are good until they expire.
set -euo pipefail

if [ "${1:-}" != --name ] || [ -z "${2:-}" ]; then
  echo "Usage: remove-app-registration.sh --name NAME" >&2
  exit 2
fi
apps=$(az ad app list --display-name "$2" --query '[].appId' --output tsv)
case $(printf '%s' "$apps" | grep -c .) in
  0)
    echo "There is no application $2" >&2
    exit 1
    ;;
  1) az ad app delete --id "$apps" ;;
  *)
    echo "Several applications are called $2; remove the right one by its id" >&2
    exit 1
    ;;
esac
