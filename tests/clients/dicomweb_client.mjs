// npm dicomweb-client: stores the files named on the command line and reads them back.
// Prints what it got as JSON.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

const require = createRequire(import.meta.url);
global.XMLHttpRequest = require('xhr2');
// Browsers send this where a page says nothing; xhr2 does not.
const { send } = XMLHttpRequest.prototype;
XMLHttpRequest.prototype.send = function (body) {
  if (!('accept' in this._loweredHeaders)) this.setRequestHeader('Accept', '*/*');
  return send.call(this, body);
};
const { api } = require('dicomweb-client');
const dcmjs = require('dcmjs');

const [url, ...files] = process.argv.slice(2);
const exact = buffer => new Uint8Array(buffer).buffer;
const datasets = files.map(file => exact(readFileSync(file)));
const client = new api.DICOMwebClient({ url });

const problems = [];
client.errorInterceptor = request => problems.push(`${request.status} ${request.responseText}`);

await client.storeInstances({ datasets });
const [study] = await client.searchForStudies({
  queryParams: { PatientID: 'DWC-JS', includefield: '00081030,00201208' },
});
const studyInstanceUID = study['0020000D'].Value[0];
const [series] = await client.searchForSeries({ studyInstanceUID });
const seriesInstanceUID = series['0020000E'].Value[0];
const instances = await client.searchForInstances({ studyInstanceUID, seriesInstanceUID });
const sopInstanceUID = instances[0]['00080018'].Value[0];
const one = { studyInstanceUID, seriesInstanceUID, sopInstanceUID };

const [metadata] = await client.retrieveInstanceMetadata(one);
const [bulk] = await client.retrieveBulkData({ BulkDataURI: metadata['7FE00010'].BulkDataURI });
const frames = await client.retrieveInstanceFrames({ ...one, frameNumbers: [1, 2] });
const rendered = await client.retrieveInstanceRendered(one);
const file = await client.retrieveInstance(one);
const parsed = dcmjs.data.DicomMessage.readFile(file);

console.log(
  JSON.stringify({
    count: study['00201208'].Value[0],
    instances: instances.length,
    metadataOfStudy: (await client.retrieveStudyMetadata({ studyInstanceUID })).length,
    metadataOfSeries: (await client.retrieveSeriesMetadata({ studyInstanceUID, seriesInstanceUID })).length,
    filesOfStudy: (await client.retrieveStudy({ studyInstanceUID })).length,
    filesOfSeries: (await client.retrieveSeries({ studyInstanceUID, seriesInstanceUID })).length,
    bulkBytes: bulk.byteLength,
    frameBytes: frames.map(frame => frame.byteLength),
    rendered: Buffer.from(rendered[0].slice(0, 3)).toString('hex'),
    same: datasets.some(each => Buffer.from(each).equals(Buffer.from(file))),
    patient: parsed.dict['00100020'].Value[0],
    problems,
  }),
);
