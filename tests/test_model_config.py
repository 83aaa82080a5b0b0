"""A model's configuration says what family it is of, and how long its context is."""

import pytest
import torch
from transformers import (
    BartConfig,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    ViTConfig,
    XLNetConfig,
)

from lifelong.errors import ModelError
from lifelong.model_config import context_length, family_of


def test_context_length_is_read_from_the_configuration_of_either_family():
    class Model(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.config = config

    assert context_length(Model(GPT2Config(n_positions=77))) == 77
    assert context_length(Model(LlamaConfig(max_position_embeddings=99))) == 99


SMALL = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize(("config", "model"), [(RobertaConfig, RobertaModel), (MPNetConfig, MPNetModel)])
def test_where_positions_begin_behind_that_of_padding_the_context_is_as_much_shorter(config, model):
    model = model(config(max_position_embeddings=20, pad_token_id=1, bos_token_id=0, eos_token_id=2, **SMALL)).eval()

    def reads(length) -> bool:
        ids = torch.full((1, length), 5)
        try:
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
        except (IndexError, RuntimeError):
            return False
        return True

    assert context_length(model) == max(length for length in range(1, 25) if reads(length)) == 18


def test_a_context_without_bounds_has_no_length():
    class Model(torch.nn.Module):
        config = XLNetConfig()

    assert XLNetConfig().max_position_embeddings == -1
    assert context_length(Model()) is None


@pytest.mark.parametrize(
    ("config", "made", "family"),
    [
        (LlamaConfig, "LlamaForCausalLM", "causal"),
        (LlamaConfig, None, "causal"),
        (LlamaConfig, "LlamaForSequenceClassification", "classifier"),
        (GPT2Config, "GPT2LMHeadModel", "causal"),
        (GPT2Config, "GPT2Model", "causal"),
        (T5Config, "T5ForConditionalGeneration", "seq2seq"),
        (BartConfig, "BartForConditionalGeneration", "seq2seq"),
        (BartConfig, None, "seq2seq"),
        (BertConfig, "BertModel", "classifier"),
        (BertConfig, "BertForMaskedLM", "classifier"),
        (BertConfig, "BertForSequenceClassification", "classifier"),
        (BertConfig, None, "classifier"),
        (BertConfig, "BertLMHeadModel", "classifier"),  # without is_decoder it would see what it is to predict
        (RobertaConfig, "RobertaForMaskedLM", "classifier"),
    ],
)
def test_a_configuration_says_what_family_its_model_is_of(config, made, family):
    assert family_of(config(architectures=made and [made])) == family


def test_a_decoder_among_encoders_is_causal():
    assert family_of(BertConfig(is_decoder=True)) == "causal"


def test_a_configuration_that_says_nothing_asks_for_the_family():
    with pytest.raises(ModelError, match="what family 'vit' belongs to is not known here; say so in `family`"):
        family_of(ViTConfig())
