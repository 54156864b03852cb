// Quantizing a checkpoint of 1.1 billion parameters while loading: memory stays near that of the result.
import { open, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { AutoModelForCausalLM, BitsAndBytesConfig } from './index.js';
import { temporaryFolders } from './testing.js';

const temporary = temporaryFolders();
const [hidden, intermediate, layers, heads, kvHeads, vocab] = [2048, 5632, 22, 32, 4, 32000];

/**
 * Writes a checkpoint of TinyLlama's shape in bfloat16; the weights are a hole in the file: zeros that take no space on
 * disk.
 */
async function writeCheckpoint(folder: string): Promise<number> {
  const kv = (hidden / heads) * kvHeads;
  const shapes: [string, number[]][] = [
    ['model.embed_tokens.weight', [vocab, hidden]],
    ['model.norm.weight', [hidden]],
    ['lm_head.weight', [vocab, hidden]],
  ];
  for (let layer = 0; layer < layers; layer++) {
    const linear = {
      'self_attn.q_proj': [hidden, hidden],
      'self_attn.k_proj': [kv, hidden],
      'self_attn.v_proj': [kv, hidden],
      'self_attn.o_proj': [hidden, hidden],
      'mlp.gate_proj': [intermediate, hidden],
      'mlp.up_proj': [intermediate, hidden],
      'mlp.down_proj': [hidden, intermediate],
      input_layernorm: [hidden],
      post_attention_layernorm: [hidden],
    };
    for (const [name, shape] of Object.entries(linear)) shapes.push([`model.layers.${layer}.${name}.weight`, shape]);
  }
  let end = 0;
  const header = Buffer.from(
    JSON.stringify(
      Object.fromEntries(
        shapes.map(([name, shape]) => {
          const start = end;
          end += 2 * shape.reduce((a, b) => a * b);
          return [name, { dtype: 'BF16', shape, data_offsets: [start, end] }];
        }),
      ),
    ),
  );
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const path = join(folder, 'model.safetensors');
  await using file = await open(path, 'w');
  await file.writev([length, header]);
  await truncate(path, 8 + header.length + end);
  await writeFile(
    join(folder, 'config.json'),
    JSON.stringify({
      architectures: ['LlamaForCausalLM'],
      model_type: 'llama',
      hidden_size: hidden,
      intermediate_size: intermediate,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      num_key_value_heads: kvHeads,
      vocab_size: vocab,
      max_position_embeddings: 2048,
      rms_norm_eps: 1e-5,
      rope_theta: 10000,
      hidden_act: 'silu',
      tie_word_embeddings: false,
      torch_dtype: 'bfloat16',
    }),
  );
  return end;
}

/** Highest resident memory since the last reset, in bytes (Linux). */
const peakBytes = async (): Promise<number> =>
  1024 * Number(/VmHWM:\s+(\d+) kB/.exec(await readFile('/proc/self/status', 'utf8'))![1]);
const resetPeak = (): Promise<void> => writeFile('/proc/self/clear_refs', '5');

// Peak memory of a process is read from /proc, which other systems do not have.
it.runIf(process.platform === 'linux')(
  'peaks at most 300 MB above the size of the quantized model',
  async () => {
    const folder = await temporary('1.1b');
    const bytes = await writeCheckpoint(folder);
    await resetPeak();
    const started = performance.now();
    const quantizationConfig = new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'nf4' });
    await using model = await AutoModelForCausalLM.fromPretrained(folder, { quantizationConfig });
    const peak = await peakBytes();
    const mb = (value: number) => `${(value / 2 ** 20).toFixed(0)} MB`;
    console.log(
      `${mb(bytes)} of bfloat16 as nf4: ${mb(model.weightBytes)}, peak resident ${mb(peak)}, in ${((performance.now() - started) / 1000).toFixed(1)} s`,
    );
    expect(model.summary().linears).toEqual({ nf4: 7 * layers, dense: 1 });
    expect(peak).toBeLessThan(model.weightBytes + 300 * 2 ** 20);
  },
  300_000,
);
