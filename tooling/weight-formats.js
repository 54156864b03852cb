// A weight format is one object: nobody outside of the two folders of formats asks which one a weight or a config has.

/** Kinds of weight, their names in files and to people, and quantization methods. */
const names = ['dense', 'bnb4', 'int8', 'nf4', 'fp4', 'bnb-4bit', 'bnb-int8', 'bitsandbytes', 'gptq', 'llm_int8'];
const flags = ['loadIn4bit', 'loadIn8bit', 'load_in_4bit', 'load_in_8bit'];

const literal = `Literal[value=/^(${names.join('|')})$/]`;
const flag = `:matches(MemberExpression[property.name=/^(${flags.join('|')})$/], Identifier[name=/^(${flags.join('|')})$/])`;
const message = (what) =>
  `${what}: ask the format object instead (formatOf of @q/tensor, formatAsked of @q/loader; docs/architecture.md)`;

const rules = [
  {
    selector: `BinaryExpression[operator=/^[!=]==?$/] > ${literal}`,
    message: message('a comparison with a weight format'),
  },
  { selector: `SwitchCase > ${literal}`, message: message('a case of a weight format') },
  {
    selector: `:matches(ConditionalExpression, IfStatement) > ${flag}.test`,
    message: message('a branch on a quantization'),
  },
  {
    selector: `:matches(ConditionalExpression, IfStatement) > .test ${flag}`,
    message: message('a branch on a quantization'),
  },
  { selector: `LogicalExpression > ${flag}.left`, message: message('a branch on a quantization') },
];

/** ESLint configuration that forbids switching on a weight format where another file would have to know the next. */
export const weightFormats = [
  {
    files: ['packages/*/src/**/*.ts', 'apps/*/src/**/*.ts'],
    ignores: [
      'packages/tensor/src/formats/**',
      'packages/loader/src/formats/**',
      // The configs of bitsandbytes and GPTQ themselves.
      'packages/config/src/{bitsandbytes,gptq,quantization}.ts',
      // Flags of the command line, whose contradictions are told in their own words.
      'apps/cli/src/flags.ts',
      '**/*.test.ts',
      'packages/tensor/src/conformance/**',
      '**/testing/**',
    ],
    rules: { 'no-restricted-syntax': ['error', ...rules] },
  },
];
