import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parseModelConfig } from './registry.js';
import { planTree } from './tree.js';

const config = (modelType: string, more: object) =>
  parseModelConfig({
    model_type: modelType,
    vocab_size: 151936,
    hidden_size: 896,
    intermediate_size: 4864,
    num_hidden_layers: 24,
    num_attention_heads: 14,
    num_key_value_heads: 2,
    hidden_act: 'silu',
    max_position_embeddings: 32768,
    rms_norm_eps: 1e-6,
    rope_theta: 1e6,
    ...more,
  });

describe('planTree', () => {
  it.each([
    ['llama', 'LlamaModel', 'LlamaModel'],
    ['llama', 'LlamaForCausalLM', 'LlamaForCausalLM'],
    ['llama', 'LlamaForTokenClassification', 'LlamaForCausalLM'],
    ['llama', undefined, 'LlamaForCausalLM'],
    ['gpt2', 'GPT2Model', 'GPT2Model'],
    ['gpt2', 'GPT2LMHeadModel', 'GPT2LMHeadModel'],
    ['t5', 'T5EncoderModel', 'T5EncoderModel'],
    ['mt5', 'MT5EncoderModel', 'MT5EncoderModel'],
    ['t5', 'T5Model', 'T5Model'],
    ['t5', 'T5WithLMHeadModel', 'T5ForConditionalGeneration'],
    ['bart', 'BartModel', 'BartModel'],
    ['marian', 'MarianMTModel', 'MarianMTModel'],
    ['bert', 'BertForMaskedLM', 'BertModel'],
  ])('%s: a config that names %s is planned as %s', (model_type, named, planned) => {
    const architectures = named === undefined ? {} : { architectures: [named] };
    const tree = planTree(parseModelConfig({ model_type, ...architectures }));
    expect(tree.modules[0][1]).toBe(planned);
  });

  it('lists the modules of Qwen 2 as transformers registers them', () => {
    const tree = planTree(config('qwen2', { tie_word_embeddings: true }));
    const plain = JSON.parse(JSON.stringify(tree.modules));
    expect(plain.slice(0, 7)).toEqual([
      ['', 'Qwen2ForCausalLM', [], []],
      ['model', 'Qwen2Model', [], []],
      ['model.embed_tokens', 'Embedding', [['weight', [151936, 896]]], []],
      ['model.layers', 'ModuleList', [], []],
      ['model.layers.0', 'Qwen2DecoderLayer', [], []],
      ['model.layers.0.self_attn', 'Qwen2Attention', [], []],
      [
        'model.layers.0.self_attn.q_proj',
        'Linear',
        [
          ['weight', [896, 896]],
          ['bias', [896]],
        ],
        [],
      ],
    ]);
    expect(plain.slice(-3)).toEqual([
      ['model.norm', 'Qwen2RMSNorm', [['weight', [896]]], []],
      [
        'model.rotary_emb',
        'Qwen2RotaryEmbedding',
        [],
        [
          ['inv_freq', [32], 'float32', false],
          ['original_inv_freq', [32], 'float32', false],
        ],
      ],
      ['lm_head', 'Linear', [['weight', [151936, 896]]], []],
    ]);
    expect(tree.tiedWeights).toEqual({ 'lm_head.weight': 'model.embed_tokens.weight' });
    expect(tree.noSplit).toEqual(['Qwen2DecoderLayer']);
  });

  it('names the classes whose weight can be quantized', () => {
    const falcon = parseModelConfig(read('configs/falcon-7b.config'));
    expect(planTree(falcon).linearClasses).toEqual(['FalconLinear', 'Linear']);
  });

  it('counts the parameters that are published: 494,032,768 with the tied head once', () => {
    const { modules, tiedWeights } = planTree(config('qwen2', { tie_word_embeddings: true }));
    const total = modules
      .flatMap(([path, , parameters]) =>
        parameters.map(([name, shape]) => (`${path}.${name}` in tiedWeights ? 0 : shape.reduce((a, b) => a * b, 1))),
      )
      .reduce((a, b) => a + b, 0);
    expect(total).toBe(494_032_768);
  });
});

// [path, class, parameters, buffers] of every module as transformers 5.17 registers them, by named_modules().
const read = (name: string): string => readFileSync(new URL(`../fixtures/${name}.json`, import.meta.url), 'utf8');
const trees = JSON.parse(read('trees')) as Record<string, [string, string, unknown, [string, number[], string][]][]>;

type Parameters = readonly (readonly [string, readonly number[]])[];
type Entry = readonly [path: string, className: string, parameters: Parameters, buffers: unknown];

/** Python's classes whose stacks hold matrices [in, out]. */
const transposed = ['GptOssExperts'];

/** The stacks that Python has in place of the experts' layers. */
function stacksOf([path, className]: Entry, modules: readonly Entry[]): Parameters {
  const parametersOf = (name: string) => new Map(modules.find(([other]) => other === `${path}.0.${name}`)![2]);
  const count = modules.filter(([other]) => other.startsWith(`${path}.`) && other.endsWith('.down_proj')).length;
  const stacks = (name: string, matrices: readonly string[]): Parameters => {
    const own = parametersOf(matrices[0]);
    const [n, k] = own.get('weight')!;
    const matrix = [n * matrices.length, k];
    const weight = [name, [count, ...(transposed.includes(className) ? matrix.reverse() : matrix)]] as const;
    return own.has('bias') ? [weight, [`${name}_bias`, [count, n * matrices.length]]] : [weight];
  };
  return [...stacks('gate_up_proj', ['gate_proj', 'up_proj']), ...stacks('down_proj', ['down_proj'])];
}

/**
 * The one exception: Python keeps the experts of a layer in two stacks, of which each matrix is a linear layer here, so
 * that it is quantized like any other.
 */
const stacked = (modules: readonly Entry[]): Entry[] =>
  modules
    .filter(([path]) => !/\.experts\.\d+(\.|$)/.test(path))
    .map((entry) => {
      const [path, className, , buffers] = entry;
      return path.endsWith('.experts') ? [path, className, stacksOf(entry, modules), buffers] : entry;
    });

it.each(Object.keys(trees))('%s: modules, parameters and buffers are those of Python, in its order', (name) => {
  const { modules } = planTree(parseModelConfig(read(`configs/${name}.config`)));
  const plain = stacked(modules).map(([path, className, parameters, buffers]) => [
    path,
    className,
    parameters,
    (buffers as [string, number[], string][]).map(([key, shape, dtype]) => [key, shape, dtype]),
  ]);
  expect(plain).toEqual(trees[name]);
});
