// Parses tokenizer.json on a thread of its own. It is text because a bundle of this package is one file. It answers
// with the file without its vocabulary and merges, then gives these in parts on request; each answer is one message.
// The rest travels as text: a value that is nested too deeply fails here, in `stringify`, and not in the other thread.
export const workerSource = `
const { parentPort, workerData } = require('node:worker_threads');
let names = [], values = [], merges = [];
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const plain = (value) => (typeof value === 'object' ? JSON.stringify(value) ?? null : value);
function take(json) {
  const model = json.model;
  if (!isObject(model)) return json;
  const rest = { ...model };
  if (Array.isArray(model.vocab)) {
    names = model.vocab.map((piece) => (Array.isArray(piece) ? plain(piece[0]) : null));
    values = model.vocab.map((piece) => (Array.isArray(piece) ? plain(piece[1]) : null));
    rest.vocab = [];
  } else if (isObject(model.vocab)) {
    names = Object.keys(model.vocab);
    values = Object.values(model.vocab).map(plain);
    rest.vocab = {};
  }
  if (Array.isArray(model.merges)) {
    merges = model.merges.map((pair) => (Array.isArray(pair) ? pair.map(plain) : pair)).map((pair) => (isObject(pair) ? plain(pair) : pair));
    rest.merges = [];
  }
  return { ...json, model: rest };
}
parentPort.on('message', ([kind, first, end]) => {
  if (kind === 'tokens') parentPort.postMessage({ tokens: names.slice(first, end), values: values.slice(first, end) });
  else parentPort.postMessage({ merges: merges.slice(first, end) });
});
try {
  const json = JSON.parse(new TextDecoder('utf-8', { ignoreBOM: true }).decode(workerData));
  if (!isObject(json)) parentPort.postMessage({ error: 'must hold a JSON object' });
  else {
    const rest = JSON.stringify(take(json));
    parentPort.postMessage({ rest, tokens: names.length, merges: merges.length });
  }
} catch (error) {
  const deep = error instanceof RangeError;
  parentPort.postMessage({ error: deep ? 'is nested too deeply' : 'is not valid JSON: ' + error.message });
}`;
