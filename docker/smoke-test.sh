#!/usr/bin/env bash
# Builds the image, starts it with an overlay, stores an instance and finds it again.
#   docker/smoke-test.sh [https|features|azure]
set -euo pipefail

cd -- "$(dirname -- "$0")/.."
overlay=${1:-}
files=(--file docker/compose.yaml)
base=${BASE:-http://127.0.0.1:8080}
partition=
case $overlay in
  '') ;;
  https)
    base=https://127.0.0.1:8443
    export CERTIFICATES=${CERTIFICATES:-$PWD/certificates}
    mkdir -p -- "$CERTIFICATES"
    openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost \
      -keyout "$CERTIFICATES/key.pem" -out "$CERTIFICATES/cert.pem"
    chmod 0644 "$CERTIFICATES/key.pem" # made a moment ago, and for this test only
    ;;
  features) partition=/partitions/smoke ;;
  azure) ;;
  *)
    echo "There is no overlay $overlay" >&2
    exit 2
    ;;
esac
if [ -n "$overlay" ]; then files+=(--file "docker/compose.$overlay.yaml"); fi

compose() { docker compose "${files[@]}" "$@"; }

finish() {
  status=$?
  if [ "$status" != 0 ]; then compose logs --tail 200; fi
  compose down --volumes --timeout 30
  exit "$status"
}
trap finish EXIT

compose up --build --detach --wait --wait-timeout 300
[ "$(compose exec -T dicom id -u)" = 10001 ]

file=$(mktemp)
compose exec -T dicom python - >"$file" <<'END'
import sys
from io import BytesIO
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

dataset = Dataset()
dataset.file_meta = FileMetaDataset()
dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
dataset.SOPClassUID = SecondaryCaptureImageStorage
dataset.SOPInstanceUID, dataset.SeriesInstanceUID = "2.25.3", "2.25.2"
dataset.StudyInstanceUID, dataset.PatientID, dataset.Modality = "2.25.1", "SMOKE", "OT"
target = BytesIO()
dataset.save_as(target, enforce_file_format=True)
sys.stdout.buffer.write(target.getvalue())
END

ask() { curl --insecure --fail-with-body --silent --show-error --max-time 60 "$@"; }

ask "$base/v2$partition/studies" --header 'Content-Type: application/dicom' \
  --data-binary "@$file"
ask "$base/v2$partition/studies?PatientID=SMOKE" | grep 2.25.1
ask "$base/v2$partition/studies/2.25.1/series/2.25.2/instances/2.25.3" \
  --header 'Accept: application/dicom; transfer-syntax=*' | cmp - "$file"
ask "$base/health/check"
compose restart --timeout 30 dicom
compose up --detach --wait --wait-timeout 120
ask "$base/v2$partition/studies?PatientID=SMOKE" | grep 2.25.1
echo "Smoke test passed"
