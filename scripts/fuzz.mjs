// Feeds damaged and hostile input to everything that reads what strangers send, in child processes, and counts what is
// neither a result nor a typed error. Inputs follow from seed, fuzzer and index alone.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { root, say } from './lib/commands.mjs';

const usage = `npm run fuzz -- [options]
  --seconds S     seconds for each fuzzer (default 10)
  --inputs N      inputs for each fuzzer, at most
  --seed N        seed of the inputs (default: random)
  --only NAMES    fuzzers, separated by commas
  --index I       only this input, as a fault names it
  --out FOLDER    where inputs with a fault are saved (default fuzz-faults)`;

const known = readdirSync(join(root, 'tooling/fuzz/fuzzers')).map((file) => file.replace(/\.mjs$/, ''));

function fail(message) {
  say(`fuzz: ${message}\n${usage}`);
  process.exit(2);
}

function readOptions() {
  const string = { type: 'string' };
  let values;
  try {
    ({ values } = parseArgs({
      options: { seconds: string, inputs: string, seed: string, only: string, index: string, out: string },
    }));
  } catch (error) {
    fail(error.message);
  }
  const number = (name, otherwise) => {
    if (values[name] === undefined) return otherwise;
    const value = Number(values[name]);
    if (!(value >= 0) || values[name].trim() === '') fail(`--${name} must be a number`);
    return value;
  };
  const only = values.only?.split(',') ?? known;
  const unknown = only.find((name) => !known.includes(name));
  if (unknown !== undefined) fail(`there is no fuzzer ${unknown}; there are ${known.join(', ')}`);
  const index = number('index');
  return {
    only,
    seed: number('seed', Math.floor(Math.random() * 2 ** 31)),
    seconds: number('seconds', index === undefined && values.inputs !== undefined ? Infinity : 10),
    inputs: index === undefined ? number('inputs', Infinity) : 1,
    first: index ?? 0,
    faultsFolder: values.out ?? join(root, 'fuzz-faults'),
  };
}

const { only, ...options } = readOptions();
// What a fuzzer tests must be built; it says which file is missing where it is not.
const { fuzz } = await import('../tooling/fuzz/parent.mjs');
say(`seed ${options.seed}`);
let total = { inputs: 0, faults: 0 };
for (const name of only) {
  const started = performance.now();
  const onFault = ({ index, kind, text, saved }) =>
    say(`${name} ${index}: ${kind}\n${text.split('\n').slice(0, 6).join('\n')}\n  saved in ${saved}`);
  const { inputs, accepted, faults } = await fuzz(name, { ...options, onFault });
  const count = faults.reduce((sum, fault) => sum + fault.count, 0);
  const took = ((performance.now() - started) / 1000).toFixed(1);
  say(
    `${name}: ${inputs} inputs (${accepted} accepted), ${count} faults${count > 0 ? ` of ${faults.length} kinds` : ''}, ${took} s`,
  );
  total = { inputs: total.inputs + inputs, faults: total.faults + count };
}
say(`${total.inputs} inputs, ${total.faults} faults`);
if (total.faults > 0) process.exit(1);
