// Chat templates: a small language, run on what callers give.
import { AutoTokenizer } from '../../../packages/transformers/dist/index.js';
import * as hostile from '../hostile.mjs';
import { tokenizers, writeFiles } from '../files.mjs';
import { mutateJson, mutateText } from '../mutate.mjs';

const seeds = [
  "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
  "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0].content %}{% else %}{% set system = '' %}{% endif %}{% for m in messages if m.role != 'system' %}{{ '[INST] ' ~ (system if loop.first else '') ~ m.content | trim ~ ' [/INST]' }}{% endfor %}",
  '{%- macro show(x, depth=0) -%}{%- if x is mapping -%}{%- for k, v in x.items() -%}{{ k }}:{{ show(v, depth + 1) }},{%- endfor -%}{%- elif x is iterable and x is not string -%}{%- for v in x -%}{{ show(v) }};{%- endfor -%}{%- else -%}{{ x }}{%- endif -%}{%- endmacro -%}{{ show(messages) }}',
  "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- set ns.n = ns.n + 1 -%}{{ ns.n }}{{ m | tojson }}{%- endfor -%}{{ raise_exception('no') if ns.n > 9 }}",
  "{% for i in range(3) %}{{ 'ab' ~ i }}{{ 'x'.upper().strip().split(',') | join('-') }}{{ [1, 2, 3] | length }}{{ messages | last }}{% endfor %}",
];
const words = [
  '{% for i in range(1000000000) %}',
  '{% for i in range(99999) %}{% for j in range(99999) %}',
  "{{ 'a' * 1000000000 }}",
  "{{ ('a' * 100000) * 100000 }}",
  '{{ range(4294967296) }}',
  '{{ messages | tojson(indent=1000000000) }}',
  '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}',
  '{% set x = [1] %}{% for i in range(60) %}{% set x = x + x %}{% endfor %}{{ x | length }}',
  '{{ messages.__proto__.constructor }}',
  "{{ ''.constructor.constructor('return process')() }}",
  "{{ messages['__proto__']['polluted'] }}",
  "{{ 'a'.replace('', 'b' * 10000) }}",
  "{{ strftime_now('%Y' * 100000) }}",
  "{{ '%s' | format(1) }}",
  '{% endfor %}',
  '{% if %}',
  '{{',
  '}}',
  '{%',
  '|',
  '(((((((((((((((((((((((',
  '-'.repeat(2000),
  `${'('.repeat(5000)}1${')'.repeat(5000)}`,
  `${'[0]'.repeat(3000)}`,
  '{% if true %}'.repeat(2000),
  'not '.repeat(5000),
  '| length | upper | tojson | first | int | float | default(1)',
  ' and ',
  ' is defined ',
  '[-1]',
  '[::0]',
  '[1e9:]',
  '.items()',
  '1e309',
  '"\\ud800"',
];
const chat = [
  { role: 'system', content: 'Be short.' },
  { role: 'user', content: 'Hello "you"\n<|im_end|>' },
  { role: 'assistant', content: 'Yes?', tool_calls: [{ function: { name: 'f', arguments: { a: 1 } } }] },
];
const files = tokenizers()['llama-bpe-bytefallback'];
const json = Object.fromEntries(
  Object.entries(files).map(([name, value]) => [name, Buffer.from(JSON.stringify(value))]),
);

function plainMessages(value) {
  return JSON.parse(JSON.stringify(value, (_, item) => (item instanceof hostile.Raw ? null : item)) ?? 'null');
}

export default {
  deadlineMs: 15_000,
  async setup(folder) {
    writeFiles(folder, json);
    // Imported here: only the processes that run inputs read TypeScript.
    const { randomTemplate } = await import('../../../packages/transformers/src/fuzz/template.ts');
    return { folder, tokenizer: await AutoTokenizer.fromPretrained(folder), randomTemplate };
  },
  good: () => seeds.map((template) => ({ template, messages: chat })),

  make(random, { randomTemplate }) {
    let template = random.chance(0.5) ? random.pick(seeds) : randomTemplate(() => random.next());
    const count = random.int(0, 4);
    for (let i = 0; i < count; i++) template = mutateText(random, template, random.chance(0.8) ? words : seeds);
    return { template, messages: random.chance(0.7) ? chat : plainMessages(mutateJson(random, chat)) };
  },

  async run({ template, messages }, { tokenizer, folder }) {
    writeFiles(folder, { 'template.jinja': template, 'messages.json': JSON.stringify(messages) });
    await tokenizer.applyChatTemplate(messages, { chatTemplate: template });
  },
};
