// Quantizes a model once, saves it, and loads the smaller one. Python transformers with bitsandbytes reads the folder
// too.
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AutoModelForCausalLM, BitsAndBytesConfig, inspectCheckpoint } from '@q/transformers';

const folder = join(tmpdir(), 'q-nano-nf4');
const prompt = 'const numbers = [';
const greedy = { prompt, maxNewTokens: 12, doSample: false };

async function quantizeAndSave(): Promise<string> {
  const quantizationConfig = new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'nf4' });
  await using model = await AutoModelForCausalLM.fromPretrained('@q/nano', { quantizationConfig });
  console.log('files:', (await model.savePretrained(folder, { maxShardSize: '4MB' })).join(', '));
  return (await model.generate(greedy)).text;
}

const before = await quantizeAndSave();
const { bytes, quantization } = await inspectCheckpoint(folder);
console.log(`${bytes} bytes on disk, ${quantization?.method}`);

await using model = await AutoModelForCausalLM.fromPretrained(folder); // config.json says how it is quantized
const after = (await model.generate(greedy)).text;
console.log(after === before ? 'the same text as before' : `different: ${before} | ${after}`);
