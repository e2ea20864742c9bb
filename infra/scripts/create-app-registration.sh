#!/usr/bin/env bash
# Makes, or brings up to date, the Entra ID application that stands for the server: its
# roles are those of the roles file, and nobody gets a token without being given one.
set -euo pipefail

usage() {
  cat <<'END'
Usage: create-app-registration.sh --name NAME [--roles FILE] [--redirect URL]
                                  [--allow-cli yes]

  --name NAME      display name of the application
  --roles FILE     roles file; default: roles.sample.json of this repository
  --redirect URL   page of a browser client that may sign in, such as
                   https://HOST/viewer/callback
  --allow-cli yes  people with a role may get tokens with the Azure CLI, unasked

Prints the values for the parameters authority and audience.
Needs the Azure CLI, signed in as somebody who may register applications, and Python 3.
END
}

name='' redirect='' allow_cli=no roles=$(dirname -- "$0")/../../roles.sample.json
while [ $# -gt 0 ]; do
  case $1 in
    --name) name=${2:?} ;;
    --roles) roles=${2:?} ;;
    --redirect) redirect=${2:?} ;;
    --allow-cli) allow_cli=${2:?} ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
  shift 2
done
if [ -z "$name" ]; then
  usage >&2
  exit 2
fi

# The id of a role follows from its name, so running this again changes nothing.
app_roles=$(python3 - "$roles" <<'END'
import json, sys, uuid

with open(sys.argv[1], encoding="utf-8") as file:
    names = [role["name"] for role in json.load(file)["roles"]]
print(json.dumps([
    {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, "dicom-functions/" + name)),
        "value": name,
        "displayName": name,
        "description": "Role " + name + " of the DICOM server",
        "allowedMemberTypes": ["User", "Application"],
        "isEnabled": True,
    }
    for name in names
]))
END
)

tenant=$(az account show --query tenantId --output tsv)
app=$(az ad app list --display-name "$name" --query '[0].appId' --output tsv)
if [ -z "$app" ]; then
  app=$(az ad app create --display-name "$name" --sign-in-audience AzureADMyOrg \
    --query appId --output tsv)
fi
object=$(az ad app show --id "$app" --query id --output tsv)
az ad app update --id "$app" --identifier-uris "api://$app" --app-roles "$app_roles"

# Tokens of version 2, whose issuer is the authority printed below, and one permission
# for people who sign in.
scope=$(python3 -c 'import sys, uuid
print(uuid.uuid5(uuid.NAMESPACE_URL, "dicom-functions/scope"))')
body='{"api": {"requestedAccessTokenVersion": 2, "oauth2PermissionScopes": [{
  "id": "'$scope'", "value": "user_impersonation", "type": "User", "isEnabled": true,
  "adminConsentDisplayName": "Use the DICOM server",
  "adminConsentDescription": "Use the DICOM server as the signed-in user"}]}'
if [ -n "$redirect" ]; then
  body=$body', "spa": {"redirectUris": ["'$redirect'"]}'
fi
az rest --method PATCH --url "https://graph.microsoft.com/v1.0/applications/$object" \
  --headers Content-Type=application/json --body "$body}"
if [ "$allow_cli" = yes ]; then
  # The id of the Azure CLI is the same everywhere. The permission must be there first.
  az rest --method PATCH --url "https://graph.microsoft.com/v1.0/applications/$object" \
    --headers Content-Type=application/json --body '{"api": {"preAuthorizedApplications": [{
    "appId": "04b07795-8ddb-461a-bbee-02f9e1bf7b46",
    "delegatedPermissionIds": ["'"$scope"'"]}]}}'
fi

if [ -z "$(az ad sp list --filter "appId eq '$app'" --query '[0].id' --output tsv)" ]; then
  az ad sp create --id "$app" --output none
fi
az ad sp update --id "$app" --set appRoleAssignmentRequired=true

printf 'authority=https://login.microsoftonline.com/%s/v2.0\n' "$tenant"
printf 'audience=%s,api://%s\n' "$app" "$app"
