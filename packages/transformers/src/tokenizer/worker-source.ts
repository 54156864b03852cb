// Parses tokenizer.json on a thread of its own. It is text because a bundle of this package is one file. It answers
// with the file without its vocabulary and merges, then gives these in parts on request. Each answer is JSON text: that
// is cheaper than cloning many strings, and a value that is nested too deeply fails here and not in the other thread.
export const workerSource = `
const { parentPort, workerData } = require('node:worker_threads');
let names = [], values = [], merges = [];
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
function take(json) {
  const model = json.model;
  if (!isObject(model)) return json;
  const rest = { ...model };
  if (Array.isArray(model.vocab)) {
    names = model.vocab.map((piece) => (Array.isArray(piece) ? piece[0] : null));
    values = model.vocab.map((piece) => (Array.isArray(piece) ? piece[1] : null));
    rest.vocab = [];
  } else if (isObject(model.vocab)) {
    names = Object.keys(model.vocab);
    values = Object.values(model.vocab);
    rest.vocab = {};
  }
  if (Array.isArray(model.merges)) {
    merges = model.merges;
    rest.merges = [];
  }
  return { ...json, model: rest };
}
function answer(make) {
  try {
    parentPort.postMessage(JSON.stringify(make()));
  } catch (error) {
    const what = error instanceof RangeError ? 'is nested too deeply' : 'is not valid JSON: ' + error.message;
    parentPort.postMessage(JSON.stringify({ error: what }));
  }
}
parentPort.on('message', ([kind, first, end]) =>
  answer(() =>
    kind === 'tokens'
      ? { tokens: names.slice(first, end), values: values.slice(first, end) }
      : { merges: merges.slice(first, end) },
  ),
);
answer(() => {
  const json = JSON.parse(new TextDecoder('utf-8', { ignoreBOM: true }).decode(workerData));
  if (!isObject(json)) return { error: 'must hold a JSON object' };
  const rest = take(json);
  return { rest, tokens: names.length, merges: merges.length };
});`;
