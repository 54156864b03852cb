// What test-sanitize.mjs runs in a process with a sanitizer: the conformance suite for each instruction set, and calls
// of commands with hostile arguments. { addon, inputs, seed?, filter?, isa? } as JSON.
import { Backend } from '@q/tensor';
import { fuzzNative, numbers, runConformance } from '@q/tensor/conformance';
import { loadAddon } from '../dist/index.js';

const options = JSON.parse(process.argv[2]);
const addon = loadAddon([options.addon]);
const sets = ['scalar', 'avx2', 'avx512'];
const best = addon.devices().devices[0].features.isa;
const isas = options.isa ? [options.isa] : sets.slice(0, sets.indexOf(best) + 1);
const filter = options.filter && new RegExp(options.filter);

let failed = 0;
for (const isa of isas) {
  const backend = new Backend(addon.open(0, { isa, threads: 3 }));
  const { passed, failures } = await runConformance(backend, { dtypes: ['f32'], filter });
  await backend.close();
  failed += failures.length;
  console.log(`conformance, ${isa}: ${passed} passed, ${failures.length} failed`);
  for (const { name, message } of failures) console.log(`  ${name}: ${message}`);
}

const inputs = Number(options.inputs);
const seed = Number(options.seed ?? Math.floor(Math.random() * 2 ** 31));
if (inputs > 0) {
  let ran = 0;
  for (let i = 0; i < inputs;) {
    // A driver for every thousand: opening and closing is looked at too.
    const driver = addon.open(0, { isa: isas[(i / 1000) % isas.length], threads: 1 + ((i / 1000) % 3) });
    for (const end = Math.min(i + 1000, inputs); i < end; i++)
      if ((await fuzzNative(driver, numbers(seed + i).uniform)) === undefined) ran += 1;
    await driver.close();
  }
  console.log(`calls: ${inputs} from seed ${seed}, ${ran} ran, the others were refused`);
}
process.exit(failed > 0 ? 1 : 0);
