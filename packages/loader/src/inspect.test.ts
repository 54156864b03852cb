import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CheckpointError } from '@q/config';
import { inspectCheckpoint } from './inspect.js';
import { fileOf, temporary, unpack } from './testing.js';

const temp = temporary();
const open = async (name: string) => inspectCheckpoint(await unpack(name, await temp.sub(name)));

describe('inspectCheckpoint', () => {
  // Parameter counts are those of the same models unquantized.
  it.each([
    ['llama-sharded', 110912, undefined, 'float32', { f32: 21 }],
    ['llama-int8', 475776, 'bitsandbytes', 'float16', { f32: 14, f16: 7, i8: 14, u8: 14 }],
    ['llama-nf4', 475776, 'bitsandbytes', 'float32', { f32: 35, u8: 28 }],
    ['llama-nf4-nested-bf16', 475776, 'bitsandbytes', 'bfloat16', { f32: 42, bf16: 7, u8: 42 }],
    ['opt-fp4', 396672, 'bitsandbytes', 'float32', { f32: 48, u8: 24 }],
  ])('%s', async (name, parameters, method, dtype, tensors) => {
    const report = await open(name);
    expect(report.parameters).toBe(parameters);
    expect(report.quantization?.method).toBe(method);
    expect(report.torchDtype).toBe(dtype);
    expect(Object.fromEntries(Object.entries(report.dtypes).map(([key, total]) => [key, total.tensors]))).toEqual(
      tensors,
    );
    expect(report.modules.reduce((sum, module) => sum + module.bytes, 0)).toBe(report.bytes);
    expect(Object.values(report.dtypes).reduce((sum, total) => sum + total.bytes, 0)).toBe(report.bytes);
  });

  it('lists modules with their real shapes and helper tensors', async () => {
    const report = await open('llama-nf4-nested-bf16');
    expect(report).toMatchObject({
      modelType: 'llama',
      architectures: ['LlamaForCausalLM'],
      metadata: { format: 'pt' },
    });
    expect(report.modules.find((module) => module.name === 'model.layers.0.mlp.down_proj')).toMatchObject({
      parameters: 128 * 320,
      entries: [
        {
          name: 'model.layers.0.mlp.down_proj.weight',
          format: 'bnb-nf4',
          shape: [128, 320],
          dtype: 'bf16',
          bytes: 20480 + 640 + 12 + 1024 + 64 + 170,
        },
      ],
    });
  });

  it('knows GPTQ shapes, integer buffers and unsupported types', async () => {
    const folder = await temp.sub('gptq');
    let at = 0;
    const t = (dtype: string, shape: number[], bytes: number) => ({ dtype, shape, data_offsets: [at, (at += bytes)] });
    const header = {
      'a.g_idx': t('I32', [64], 256),
      'a.qweight': t('I32', [8, 32], 1024),
      'a.qzeros': t('I32', [1, 4], 16),
      'a.scales': t('F16', [1, 32], 64),
      'a.bias': t('F16', [32], 64),
      'b.qweight': t('I32', [8, 32], 1024),
      ids: t('I64', [3], 24),
      big: t('F64', [2], 16),
    };
    await writeFile(join(folder, 'model.safetensors'), fileOf(header, at));
    await expect(inspectCheckpoint(folder)).rejects.toThrow(CheckpointError);
    await writeFile(join(folder, 'quantize_config.json'), '{"bits": 4, "group_size": 128}');
    const report = await inspectCheckpoint(folder);
    expect(report.quantization).toMatchObject({ method: 'gptq', config: { bits: 4 } });
    expect(report.modules.map(({ name, parameters, bytes }) => [name, parameters, bytes])).toEqual([
      ['a', 64 * 32 + 32, 1424],
      ['b', 2048, 1024],
      ['', 2, 40],
    ]);
    expect(report.dtypes.F64).toEqual({ tensors: 1, elements: 2, bytes: 16 });
    await writeFile(join(folder, 'config.json'), '{');
    await expect(inspectCheckpoint(folder)).rejects.toThrow(/not valid JSON.*|config.json/);
  });
});
